-- Puts the next model's vector in the place of the old one, in whatever tier the context lies. Its content
-- stays what it is, and so does its version.
-- KEYS: the context. ARGV: the version that was read | sealed enrichment | sealed vector.
-- Returns 1, or 0 where it has changed or is gone.
local held = redis.call('HMGET', KEYS[1], 'version', 'deleted')
if held[1] ~= ARGV[1] or held[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'enrichment', ARGV[2], 'vector', ARGV[3])
redis.call('HDEL', KEYS[1], 'next_vector')
return 1
