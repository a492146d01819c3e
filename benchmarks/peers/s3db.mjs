// What benchmarks.peers.django_peer does, with s3db.js.

import { readFileSync } from "node:fs";
import { S3db } from "s3db.js/lite";

const given = JSON.parse(readFileSync(0, "utf8"));

async function connect({ cache }) {
  const plugins = [];
  if (cache) {
    const { CachePlugin } = await import("s3db.js/plugins/cache.plugin");
    plugins.push(new CachePlugin({ driver: "memory", logLevel: "silent" }));
  }
  const { protocol, host } = new URL(given.store);
  const db = new S3db({
    connectionString: `${protocol}//x:x@${host}/${given.bucket}/${given.prefix}`,
    clientOptions: { httpClientOptions: { useReckerHandler: false } },
    logLevel: "silent",
    plugins,
  });
  await db.connect();
  const items = await db.createResource({
    name: "items",
    attributes: {
      sku: "string|required",
      name: "string|required",
      category_id: "number|required",
      region: "string|required",
      price: "string|required",
      stock: "number|required",
      is_active: "boolean|required",
      created: "string|required",
      notes: "string|required",
    },
    // With all values in its headers an object has an empty body, which it does
    // not read: the AWS SDK then waits for it, and after 50 has no connection.
    behavior: "body-only",
    timestamps: false,
    partitions: { byRegion: { fields: { region: "string" } } },
  });
  return { db, items };
}

async function counts() {
  return (await fetch(`${given.store}/-/counts`)).json();
}

async function requestsOf(work) {
  const before = await counts();
  const result = await work();
  const after = await counts();
  const requests = {};
  for (const [kind, count] of Object.entries(after)) {
    if (count > (before[kind] ?? 0)) requests[kind] = count - (before[kind] ?? 0);
  }
  return [result, requests];
}

// Numbers that are the same in each run (mulberry32).
function randomFrom(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

async function times(work, most) {
  const seconds = [];
  const begun = performance.now();
  for (let n = 0; n < most; n++) {
    const started = performance.now();
    if (n >= 5 && started - begun > 1000 * given.longest) break;
    await work();
    seconds.push((performance.now() - started) / 1000);
  }
  return seconds;
}

// It has no increment of its own: what was read is changed and written.
async function increment(items, id) {
  const item = await items.get(id);
  await items.update(id, { stock: item.stock + 1 });
}

function operations(items, ids) {
  const random = randomFrom(1);
  const popular = ids.slice(0, 100);
  const inWarehouses = ids.slice(-given.warehouses);
  const one = () => popular[Math.floor(random() * popular.length)];
  let made = 0;
  return {
    "get(pk), one of 100": [() => items.get(one()), 2000],
    "count()": [() => items.count(), 1000],
    "list(100)": [() => items.list({ limit: 100 }), 400],
    "filter(region).count()": [
      () =>
        items.count({
          partition: "byRegion",
          partitionValues: { region: `r${Math.floor(random() * 5)}` },
        }),
      400,
    ],
    [`page of ${given.warehouses} warehouses`]: [
      async () => {
        await items.get(one());
        await items.getMany(inWarehouses);
      },
      200,
    ],
    "create()": [() => items.insert(given.new[made++]), 200],
    "update(stock + 1)": [() => increment(items, one()), 200],
    "update, then get(pk)": [
      async () => {
        await increment(items, ids[0]);
        await items.get(ids[0]);
      },
      200,
    ],
  };
}

async function stocks(items, ids) {
  const found = new Map();
  for (let start = 0; start < ids.length; start += 50) {
    const some = ids.slice(start, start + 50);
    for (const item of await Promise.all(some.map((id) => items.get(id)))) {
      found.set(item.id, item.stock);
    }
  }
  return found;
}

async function mixed(items, ids) {
  const begun = await stocks(items, ids);
  const weights = [];
  for (let n = 1, sum = 0; n <= ids.length; n++) weights.push((sum += 1 / n));
  const acknowledged = new Map(ids.map((id) => [id, 0]));
  const found = { reads: 0, writes: 0, stale: 0, errors: 0 };

  function choose(random) {
    const wanted = random() * weights.at(-1);
    let low = 0;
    let high = weights.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (weights[middle] < wanted) low = middle + 1;
      else high = middle;
    }
    return ids[low];
  }

  async function work(seed, ends) {
    const random = randomFrom(seed);
    while (performance.now() < ends) {
      const id = choose(random);
      try {
        if (random() < 0.1) {
          await increment(items, id);
          acknowledged.set(id, acknowledged.get(id) + 1);
          found.writes++;
        } else {
          const least = begun.get(id) + acknowledged.get(id);
          if ((await items.get(id)).stock < least) found.stale++;
          found.reads++;
        }
      } catch (error) {
        found.errors++;
        const name = `error: ${error.name}`;
        found[name] = (found[name] ?? 0) + 1;
      }
    }
  }

  function all(first, seconds) {
    const ends = performance.now() + 1000 * seconds;
    return Promise.all(
      Array.from({ length: given.workers }, (_, n) => work(first + n, ends)),
    );
  }

  await all(0, given.before);
  found.reads = found.writes = 0; // what is wrong is wrong
  const started = performance.now();
  const [, requests] = await requestsOf(() => all(given.workers, given.mixed));
  const seconds = (performance.now() - started) / 1000;
  // By somebody who knows nothing but the bucket.
  const { items: anew } = await connect({ cache: false });
  const ended = await stocks(anew, ids);
  found.lost = 0;
  for (const [id, count] of acknowledged) {
    found.lost += Math.max(begun.get(id) + count - ended.get(id), 0);
  }
  return { counts: found, seconds, requests };
}

async function measured(work, most) {
  await work(); // the first time is everybody's slowest
  const [seconds, requests] = await requestsOf(() =>
    times(work, Math.max(Math.floor(most * given.scale), 5)),
  );
  return { seconds, requests };
}

// They are only counted, which it does by their keys.
async function load(db, count) {
  const many = await db.createResource({
    name: "many",
    attributes: { sku: "string|required" },
    behavior: "body-only",
    timestamps: false,
  });
  for (let start = 0; start < count; start += 1000) {
    const some = Array.from({ length: Math.min(1000, count - start) });
    await many.insertMany(some.map((_, n) => ({ sku: `sku ${start + n}` })));
  }
  return many;
}

const { db, items } = await connect(given);
for (let start = 0; start < given.items.length; start += 100) {
  await items.insertMany(given.items.slice(start, start + 100));
}
const ids = (await items.listIds({ limit: given.items.length })).sort();

const told = { operations: {} };
for (const [name, [work, most]] of Object.entries(operations(items, ids))) {
  told.operations[name] = await measured(work, most);
}
told.mixed = await mixed(items, ids);
const many = await load(db, given.many);
told.operations[given["count many"]] = await measured(() => many.count(), 400);
// A pipe takes 64 KiB at a time: who exits at once loses the rest.
process.stdout.write(`${JSON.stringify(told)}\n`, () => process.exit(0));
