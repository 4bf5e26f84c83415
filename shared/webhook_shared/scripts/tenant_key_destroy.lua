-- Leaves nothing of a tenant's keys but the mark that they were destroyed, which no writer takes away.
-- KEYS[1] the key table. Returns how many salts there were, or -1 where they had been destroyed before.
if redis.call('HEXISTS', KEYS[1], 'destroyed') == 1 then
  -- Whatever else is in it was put there by somebody who did not look.
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if field ~= 'destroyed' then
      redis.call('HDEL', KEYS[1], field)
    end
  end
  return -1
end
local held = redis.call('HLEN', KEYS[1])
local clock = redis.call('TIME')
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'destroyed', clock[1] * 1000 + math.floor(clock[2] / 1000))
-- One field names the current one.
return math.max(held - 1, 0)
