-- Notes a segment before it is written, or one that was found.
-- KEYS: the tenant's segments by when to look at them, the segment.
-- ARGV: id | bytes of its members | bytes of those that live | how many live | name of the object with their
--   keys | in how many ms to look at it | how it came to be known | 1 where it is complete.
-- Returns 1, or 0 where it was known.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('HSET', KEYS[2], 'born', now, 'size', ARGV[2], 'live', ARGV[3], 'members', ARGV[4], 'keys', ARGV[5],
  'origin', ARGV[7])
if ARGV[8] == '1' then
  redis.call('HSET', KEYS[2], 'outcome', 'complete')
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[6]), ARGV[1])
return 1
