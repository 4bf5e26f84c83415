-- Keeps the vector of a context that another model is to have, beside the one that serves.
-- KEYS: the context. ARGV: sealed vector, or '' to drop it. Returns its version, 0 where it is gone.
local held = redis.call('HMGET', KEYS[1], 'version', 'deleted')
if not held[1] or held[2] then
  return 0
end
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'next_vector')
else
  redis.call('HSET', KEYS[1], 'next_vector', ARGV[1])
end
return tonumber(held[1])
