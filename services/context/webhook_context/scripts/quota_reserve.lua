-- Makes room for events within a tenant's limits, or says which there is none for; in their order.
-- KEYS: the list of its contexts | contexts that are about to be | what it uses.
-- ARGV: most contexts or 0 | most bytes or 0 | then for each event its context and its bytes, at most.
-- Returns for each event 0 where there is room, 1 for one context too many, 2 for too many bytes; and at last
-- the number of the count in which this was reserved.

-- Who reserved and was not heard of again has died: the context is in the list by then, or never will be.
local ABOUT_TO_BE_MS = 60 * 1000

local most_contexts, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ABOUT_TO_BE_MS)
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if redis.call('ZSCORE', KEYS[1], id) then
    redis.call('ZREM', KEYS[2], id)
  end
end
local contexts = redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2])
local used = tonumber(redis.call('HGET', KEYS[3], 'bytes') or 0)

local answers, reserved = {}, 0
for at = 3, #ARGV, 2 do
  local id, bytes = ARGV[at], tonumber(ARGV[at + 1])
  local is_new = not (redis.call('ZSCORE', KEYS[1], id) or redis.call('ZSCORE', KEYS[2], id))
  local answer = 0
  if most_contexts > 0 and is_new and contexts >= most_contexts then
    answer = 1
  elseif most_bytes > 0 and used + reserved + bytes > most_bytes then
    answer = 2
  else
    reserved = reserved + bytes
    if is_new then
      redis.call('ZADD', KEYS[2], now, id)
      -- Nothing of a context's name outlives it here.
      redis.call('PEXPIRE', KEYS[2], ABOUT_TO_BE_MS)
      contexts = contexts + 1
    end
  end
  answers[#answers + 1] = answer
end
if reserved > 0 then
  redis.call('HINCRBY', KEYS[3], 'bytes', reserved)
  redis.call('HINCRBY', KEYS[3], 'since', reserved)
end
answers[#answers + 1] = tonumber(redis.call('HGET', KEYS[3], 'count') or 0)
return answers
