-- Lets go of refused deliveries that are to be forgotten. Idempotent.
-- KEYS as in rejections_keep.lua. ARGV: members of the index ("<id> <cause>").
-- Returns how many there were.
local index, facts, deliveries, bytes, settled = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local dropped = 0
for _, member in ipairs(ARGV) do
  local id = string.match(member, '^%S+')
  local size = redis.call('HSTRLEN', deliveries, id)
  if size > 0 then
    redis.call('DECRBY', bytes, size)
  end
  dropped = dropped + redis.call('HDEL', facts, id)
  redis.call('HDEL', deliveries, id)
  redis.call('HDEL', settled, id)
  redis.call('ZREM', index, member)
end
return dropped
