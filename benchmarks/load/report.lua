-- Has wrk print what it measured as a line of JSON. Times are in seconds.
function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "mean": %.6f, "median": %.6f, '
      .. '"p95": %.6f, "p99": %.6f, "longest": %.6f, "errors": %d}',
    summary.requests,
    summary.duration / 1e6,
    latency.mean / 1e6,
    latency:percentile(50) / 1e6,
    latency:percentile(95) / 1e6,
    latency:percentile(99) / 1e6,
    latency.max / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
