-- Writes a pack into Redis, unless its context is gone or somebody else moves it by now.
-- KEYS: the context, its packs. ARGV: name | pack. Returns 1, or 0.
if redis.call('HGET', KEYS[1], 'copying') ~= 'w|' .. ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
