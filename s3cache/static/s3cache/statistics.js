/*
 * Keeps the figures of the statistics page new.
 *
 * It fetches the page that is shown and takes over what is marked data-live,
 * but nothing that the reader is at just now: what has the focus, is unfolded,
 * or of which a part is selected, stays as it is until the next time.
 */
"use strict";

{
  const live = document.querySelector("[data-s3c-live]");

  /** Whether the reader is at work within a part of the page. */
  function isInUse(part) {
    const selection = document.getSelection();
    return (
      (part !== document.activeElement && part.contains(document.activeElement)) ||
      part.querySelector("details[open]") !== null ||
      (selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode))
    );
  }

  function takeOver(text) {
    const parsed = new DOMParser().parseFromString(text, "text/html");
    for (const newer of parsed.querySelectorAll("[data-live]")) {
      const part = document.getElementById(newer.id);
      if (part !== null && part.innerHTML !== newer.innerHTML && !isInUse(part)) {
        part.replaceChildren(...newer.childNodes);
      }
    }
  }

  class Updates {
    constructor(element) {
      this.data = element.dataset;
      this.status = element.querySelector("[data-s3c-status]");
      this.button = element.querySelector("button");
      this.interval = 1000 * Number(this.data.s3cLive);
      this.isHeld = false;
      this.failures = 0;
      this.say(this.data.new);
      this.button.addEventListener("click", () => this.hold(!this.isHeld));
      document.addEventListener("visibilitychange", () => this.again());
      element.hidden = false;
      this.again();
    }

    say(words, at = new Date()) {
      this.status.textContent = `${words} ${at.toLocaleTimeString()}`;
    }

    hold(isHeld) {
      this.isHeld = isHeld;
      this.button.setAttribute("aria-pressed", String(isHeld));
      if (isHeld) {
        this.say(this.data.held);
        clearTimeout(this.timer);
      } else {
        this.fetch();
      }
    }

    again() {
      clearTimeout(this.timer);
      if (!this.isHeld && !document.hidden) {
        // The longer nobody answers, the more seldom it is asked.
        const wait = this.interval * 2 ** Math.min(this.failures, 5);
        this.timer = setTimeout(() => this.fetch(), wait);
      }
    }

    async fetch() {
      clearTimeout(this.timer);
      try {
        const response = await fetch(location.href, {
          headers: { "X-S3cache-Live": "1" },
          redirect: "manual",
          cache: "no-store",
        });
        if (response.type === "opaqueredirect" || response.status === 403) {
          this.status.textContent = this.data.out;
          this.button.hidden = true;
          return;
        }
        if (!response.ok) {
          throw new Error(response.statusText);
        }
        const text = await response.text();
        if (this.isHeld) {
          return;
        }
        takeOver(text);
        this.failures = 0;
        this.answered = new Date();
        this.say(this.data.new);
      } catch {
        this.failures += 1;
        this.say(this.data.lost, this.answered);
      }
      this.again();
    }
  }

  if (live !== null) {
    new Updates(live);
  }
}
