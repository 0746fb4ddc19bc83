-- Sends requests that are ready on disk, each one once; wrk -s wrk.lua URL -- FOLDER OFFSET
-- FOLDER/requests-0, -1 …, one file for each thread: a line with a length, then so many bytes of a whole request.
-- OFFSET is "a,b": where thread 0 and thread 1 go on reading. A thread that comes to the end begins its file again, and
-- says how often it did.
-- At the end one JSON object goes to standard error, since wrk's own words stand on standard output.
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  file = assert(io.open(args[1] .. "/requests-" .. (number or 0), "rb"))
  local first, second = args[2]:match("(%d+),(%d+)")
  start = tonumber((number or 0) == 0 and first or second)
  file:seek("set", start)
  rounds = 0
  position = start
  rehearsed = number ~= 0  -- wrk asks thread 0 for a request that it never sends
end

function request()
  local length = file:read("*l")
  if not length then
    rounds = rounds + 1
    file:seek("set", 0)
    length = file:read("*l")
  end
  local whole = file:read(tonumber(length))
  if not rehearsed then
    rehearsed = true
    file:seek("set", start)
    return whole
  end
  position = file:seek()
  return whole
end

function done(summary, latency)
  local places, again = {}, 0
  for _, thread in ipairs(threads) do
    table.insert(places, string.format("%d", thread:get("position")))
    again = again + thread:get("rounds")
  end
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"microseconds":%d,"not_2xx":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,' ..
    '"offset":"%s","began_again":%d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max, table.concat(places, ","), again))
end
