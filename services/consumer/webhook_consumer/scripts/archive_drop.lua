-- Drops chunks that have been written into a segment. Repeating it changes nothing more.
-- KEYS 1: stream of chunks. 2: HASH of what waits. ARGV: per chunk id, bytes, how many events.
for at = 1, #ARGV, 3 do
  if redis.call('XDEL', KEYS[1], ARGV[at]) == 1 then
    redis.call('HINCRBY', KEYS[2], 'bytes', -ARGV[at + 1])
    redis.call('HINCRBY', KEYS[2], 'events', -ARGV[at + 2])
  end
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2])
end
return 1
