-- The book of one credential (see budget.py), kept with the server's clock. Times are milliseconds.
--
-- KEYS[1] state   hash: tokens, at, paused, strikes, left, left_until, fails, rounds, open, probe
-- KEYS[2] places  sorted set: calls that are out, by when their place is free again whatever happens
-- KEYS[3] spent   hash: calls that are back, by slices of the window, with their sum and the oldest slice; further windows
--                 have theirs in KEYS[4], KEYS[5] …
-- ARGV    verb, place (for `take` one or more of them, with blanks between), calls, span (of each window), concurrent, interval, burst, lease, failures, first_pause, longest_pause,
--         strike, longest_strike, probe_wait; for `give`: fine ("1", "0", ""), pause, throttled, remaining, reset
-- take -> {how many of them have a place, wait, why}; without a why all have.   give -> {1 while the breaker is open}.   owe, free -> {}   out -> places

local state, places = KEYS[1], KEYS[2]
local verb, place = ARGV[1], ARGV[2]
local concurrent = tonumber(ARGV[5])
local interval, burst, lease = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local windows = {}
for calls in string.gmatch(ARGV[3], '%S+') do
  windows[#windows + 1] = { spent = KEYS[#windows + 3], calls = tonumber(calls) }
end
local number = 0
for span in string.gmatch(ARGV[4], '%S+') do
  number = number + 1
  windows[number].span, windows[number].width = tonumber(span), tonumber(span) / 250
end

local function text(number) return string.format('%.3f', number) end
local function name(slice) return string.format('%.0f', slice) end
local function read(field) return tonumber(redis.call('HGET', state, field)) or 0 end

local function spend_in(window, count)
  local spent, slice = window.spent, math.floor(now / window.width)
  redis.call('HINCRBY', spent, name(slice), count)
  redis.call('HINCRBY', spent, 'sum', count)
  local oldest = tonumber(redis.call('HGET', spent, 'oldest'))
  if not oldest or slice < oldest then redis.call('HSET', spent, 'oldest', name(slice)) end
  redis.call('PEXPIRE', spent, math.ceil(window.span * 1.1 + 1000))
end

local function spend(count)
  for _, window in ipairs(windows) do spend_in(window, count) end
end

-- Drop the slices that are behind a window: how many calls are left in it, and when the first of them leaves it.
local function counted(window)
  local spent, span, width = window.spent, window.span, window.width
  local sum = tonumber(redis.call('HGET', spent, 'sum')) or 0
  local oldest = tonumber(redis.call('HGET', spent, 'oldest'))
  if not oldest then return 0, 0 end
  local edge = math.floor((now - span) / width)
  local first = oldest
  while oldest < edge or (sum > 0 and oldest < now / width and not redis.call('HGET', spent, name(oldest))) do
    local count = redis.call('HGET', spent, name(oldest))
    if count then
      redis.call('HDEL', spent, name(oldest))
      sum = sum - count
    end
    oldest = oldest + 1
  end
  if oldest ~= first then redis.call('HSET', spent, 'oldest', name(oldest), 'sum', sum) end
  return sum, (oldest + 1) * width + span
end

local function wait(granted, milliseconds, why) return { granted, text(milliseconds), why } end

local function take()
  local dead = redis.call('ZREMRANGEBYSCORE', places, '-inf', now)
  if dead > 0 then spend(dead) end -- they may have asked until the last moment

  local paused = read('paused')
  if now < paused then return wait(0, paused - now, 'paused') end
  local open = read('open')
  if now < open then return wait(0, open - now, 'open') end
  if open > 0 then
    local probe = redis.call('HGET', state, 'probe')
    if probe and redis.call('ZSCORE', places, probe) then return wait(0, tonumber(ARGV[14]), 'open') end
  end
  local left_until = read('left_until')
  local left = now < left_until and read('left') or math.huge
  local out = redis.call('ZCARD', places)
  for _, window in ipairs(windows) do window.back, window.until_ = counted(window) end
  local at = redis.call('HGET', state, 'at')
  local tokens = 1
  if at then tokens = math.min(burst, read('tokens') + math.max(0, now - at) / interval) end

  local granted, seconds, why = 0, -1, ''
  for name in string.gmatch(place, '%S+') do
    if open > 0 and granted == 1 then
      seconds, why = tonumber(ARGV[14]), 'open'
    elseif left < 1 then
      seconds, why = left_until - now, 'paused'
    else
      for _, window in ipairs(windows) do
        if window.back + out >= window.calls then
          if window.back > 0 then
            seconds, why = math.max(seconds, window.until_ - now), 'budget'
          elseif why == '' then
            seconds, why = 0, 'busy'
          end
        end
      end
      if why == '' and out >= concurrent then
        seconds, why = 0, 'busy'
      elseif why == '' and tokens < 1 then
        seconds, why = (1 - tokens) * interval, 'budget'
      end
    end
    if why ~= '' then break end
    granted, out, tokens, left = granted + 1, out + 1, tokens - 1, left - 1
    redis.call('ZADD', places, text(now + lease), name)
    if open > 0 then redis.call('HSET', state, 'probe', name) end
  end
  if granted > 0 then
    redis.call('HSET', state, 'tokens', string.format('%.6f', tokens), 'at', text(now))
    if now < left_until then redis.call('HSET', state, 'left', left) end
    redis.call('PEXPIRE', places, 90000000) -- long after the leases: who died must be counted
    redis.call('PEXPIRE', state, 90000000)
  end
  return wait(granted, seconds, why)
end

local function watch(fine)
  local open = read('open')
  local probing = redis.call('HGET', state, 'probe') == place
  if fine == '' then
    if probing then redis.call('HDEL', state, 'probe') end
  elseif fine == '1' then
    if probing then
      redis.call('HDEL', state, 'probe', 'open', 'fails', 'rounds')
    elseif open == 0 then
      redis.call('HDEL', state, 'fails')
    end
  elseif open == 0 or probing then
    local fails = redis.call('HINCRBY', state, 'fails', 1)
    if probing or fails >= tonumber(ARGV[9]) then
      local rounds = redis.call('HINCRBY', state, 'rounds', 1)
      local pause = math.min(tonumber(ARGV[10]) * 2 ^ math.min(rounds - 1, 20), tonumber(ARGV[11]))
      redis.call('HSET', state, 'open', text(now + pause))
      redis.call('HDEL', state, 'probe')
    end
  end
end

local function give()
  if redis.call('ZREM', places, place) == 1 then spend(1) end
  local fine, pause, throttled = ARGV[15], tonumber(ARGV[16]), ARGV[17] == '1'
  watch(fine)
  local paused = read('paused')
  if throttled and pause <= 0 and now >= paused then
    local strikes = redis.call('HINCRBY', state, 'strikes', 1)
    pause = math.min(tonumber(ARGV[12]) * 2 ^ math.min(strikes - 1, 20), tonumber(ARGV[13]))
  elseif fine == '1' and not throttled and now >= paused then
    redis.call('HDEL', state, 'strikes')
  end
  if pause > 0 and now + pause > paused then redis.call('HSET', state, 'paused', text(now + pause)) end
  local remaining = tonumber(ARGV[18])
  if remaining >= 0 then
    -- What is still out may be counted by the platform already, or not yet.
    redis.call('HSET', state, 'left', remaining - redis.call('ZCARD', places), 'left_until', text(now + ARGV[19]))
  end
  redis.call('PEXPIRE', state, 90000000)
  if read('open') > 0 then return { 1 } end
  return { 0 }
end

if verb == 'take' then return take() end
if verb == 'give' then return give() end
if verb == 'out' then return redis.call('ZRANGE', places, 0, -1) end
if verb == 'free' then
  for name in string.gmatch(place, '%S+') do
    if redis.call('ZREM', places, name) == 1 then spend(1) end
  end
  return {}
end
local which = 0 -- owe: calls that were made while nobody could write them down here
for count in string.gmatch(place, '%S+') do
  which = which + 1
  if tonumber(count) > 0 then spend_in(windows[which], count) end
end
return {}
