-- Kept answers that all workers share (see shared_answers.py).
--
-- An answer is its time of asking in milliseconds (13 digits) and then what Python packed. KEYS: answer, asking, order,
-- sizes. ARGV[1] is the verb:
--
-- find  mine, not_before, ask_for, seen  -> {"answer", bytes} | {"ask"} | {"wait", who} | {"absent"}
-- keep  mine, bytes, keep, most          -> {}, and the end
-- end   mine, absent, grace              -> {}

local answer, asking, order, sizes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

if ARGV[1] == 'find' then
  local mine, not_before, ask_for, seen = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
  local found = redis.call('GET', answer)
  if found and tonumber(string.sub(found, 1, 13)) >= not_before then return { 'answer', found } end
  local who = redis.call('GET', asking)
  -- Who waited for this very question shares that there is nothing; who comes later asks.
  if who and seen ~= '' and who == 'absent:' .. seen then return { 'absent' } end
  if who and string.sub(who, 1, 7) ~= 'absent:' then return { 'wait', who } end
  redis.call('SET', asking, mine, 'PX', ask_for)
  return { 'ask' }
end

if ARGV[1] == 'end' then
  if redis.call('GET', asking) == ARGV[2] then
    if ARGV[3] == '1' then
      redis.call('SET', asking, 'absent:' .. ARGV[2], 'PX', ARGV[4])
    else
      redis.call('DEL', asking)
    end
  end
  return {}
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local body, keep, most = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local sum = tonumber(redis.call('HGET', sizes, 'sum')) or 0

local function forget(key)
  local size = redis.call('HGET', sizes, key)
  if size then
    sum = sum - size
    redis.call('HDEL', sizes, key)
  end
  redis.call('ZREM', order, key)
end

for _, key in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', now, 'LIMIT', 0, 100)) do forget(key) end
forget(answer)
while sum > 0 and sum + #body > most do
  local first = redis.call('ZRANGE', order, 0, 0)[1] -- what would be forgotten next anyway
  if not first then
    sum = 0
    break
  end
  redis.call('DEL', first)
  forget(first)
end
redis.call('SET', answer, body, 'PX', keep)
redis.call('ZADD', order, string.format('%.0f', now + keep), answer)
redis.call('HSET', sizes, answer, #body, 'sum', sum + #body)
if redis.call('GET', asking) == ARGV[2] then redis.call('DEL', asking) end
redis.call('PEXPIRE', order, 90000000)
redis.call('PEXPIRE', sizes, 90000000)
return {}
