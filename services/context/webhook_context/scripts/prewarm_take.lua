-- Ends the waiting of contexts; whoever gets one here has it alone.
-- KEYS: who waits, until when. ARGV: ids. Returns {id, what is known of it...} of those that waited.
local found = {}
for _, id in ipairs(ARGV) do
  local known = redis.call('HGET', KEYS[1], id)
  if known then
    redis.call('HDEL', KEYS[1], id)
    found[#found + 1] = id
    found[#found + 1] = known
  end
  redis.call('ZREM', KEYS[2], id)
end
return found
