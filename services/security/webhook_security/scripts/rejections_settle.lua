-- A refused delivery was accepted after all: it is no longer kept, only what it became.
--
-- KEYS  1 facts by id   2 deliveries by id   3 bytes of the deliveries   4 event id by id
-- ARGV  1 id   2 event id   3 longest age, ms

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
local size = redis.call('HSTRLEN', KEYS[2], ARGV[1])
if size > 0 then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('DECRBY', KEYS[3], size)
end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[4], ARGV[3])
return 1
