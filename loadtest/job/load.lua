-- What wrk sends: the same request for a thousand sessions in turn. At the end it prints one line
-- of JSON, because wrk's own summary is rounded.

local requests = {}
local position = 0

function init(arguments)
  local method, path, connection = arguments[1], arguments[2], arguments[3]
  local body = nil
  if method == "POST" then
    body = string.rep("x", 4096)
  end
  for session = 1, 1000 do
    local headers = {["X-User-Id"] = "user-" .. session, ["Connection"] = connection}
    requests[session] = wrk.format(method, path, headers, body)
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'SUMMARY {"requests": %d, "seconds": %.6f, "errors": %d, "p50_us": %d, "p99_us": %d}',
    summary.requests,
    summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50),
    latency:percentile(99)
  ))
end
