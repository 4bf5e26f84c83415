-- Makes verified keys of a segment the ones that count; those of before are to be deleted.
-- KEYS: the segment, its objects that are to be deleted, the tenant's segments by when to look at them.
-- ARGV: name of the new object, or '' to end the lease without one | name that `begin` gave | bytes of the
--   members that live | how many | id | look at the segment at once below so many bytes.
-- Returns 1, or 0 where somebody else has begun anew.
local held = redis.call('HMGET', KEYS[1], 'next', 'keys')
if not held[1] or held[1] ~= ARGV[2] then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[2], now, held[2])
  redis.call('HSET', KEYS[1], 'keys', ARGV[1], 'live', ARGV[3], 'members', ARGV[4])
  if tonumber(ARGV[3]) < tonumber(ARGV[6]) then
    redis.call('ZADD', KEYS[3], now, ARGV[5])
  end
end
redis.call('HDEL', KEYS[1], 'next', 'next_until')
return 1
