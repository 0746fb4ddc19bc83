-- Sends requests that are ready on disk, each one once; wrk -s wrk.lua URL -- FOLDER OFFSET [stop]
-- FOLDER/requests-0, -1 …, one file for each thread: a line with a length, then so many bytes of a whole request.
-- OFFSET is "a,b": where thread 0 and thread 1 go on reading. With `stop` a thread ends when all of its requests were
-- answered; without, it begins its file again, and says how often it did.
-- At the end one JSON object goes to standard error, since wrk's own words stand on standard output.
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  file = assert(io.open(args[1] .. "/requests-" .. (number or 0), "rb"))
  local first, second = args[2]:match("(%d+),(%d+)")
  file:seek("set", tonumber((number or 0) == 0 and first or second))
  stopping = args[3] == "stop"
  rounds, made, answered, odd = 0, 0, 0, 0
  position = 0
  if stopping then response = count end
end

function request()
  local length = file:read("*l")
  if not length then
    if stopping then return "GET /nothing-more HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" end
    rounds = rounds + 1
    file:seek("set", 0)
    length = file:read("*l")
  end
  made = made + 1
  local whole = file:read(tonumber(length))
  position = file:seek()
  return whole
end

function count(status)
  if status == 404 then return end
  if status == 200 then answered = answered + 1 else odd = odd + 1 end
  if answered + odd >= made and file:read(0) == nil then wrk.thread:stop() end
end

function done(summary, latency)
  local places, again, answers, others = {}, 0, 0, 0
  for _, thread in ipairs(threads) do
    table.insert(places, string.format("%d", thread:get("position")))
    again = again + thread:get("rounds")
    answers = answers + thread:get("answered")
    others = others + thread:get("odd")
  end
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"microseconds":%d,"not_2xx":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,' ..
    '"offset":"%s","began_again":%d,"answered_200":%d,"answered_otherwise":%d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max, table.concat(places, ","), again, answers, others))
end
