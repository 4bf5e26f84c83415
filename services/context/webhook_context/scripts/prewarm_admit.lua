-- Lets a context wait for its predicted use.
-- KEYS: who waits, until when. ARGV: id | what is known of it | until when, ms | how many may wait.
-- Returns 1, 0 where it waits already, -1 where too many do.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  return 0
end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return 1
