-- Puts a chunk of processed events where the archiver finds it, unless too much waits there already.
-- KEYS 1: stream of chunks. 2: HASH of what waits. ARGV: most bytes, data, sizes, how many events.
-- Returns 1, or 0 where there is no room.
local held = tonumber(redis.call('HGET', KEYS[2], 'bytes') or 0)
local bytes = #ARGV[2] + #ARGV[3]
if held > 0 and held + bytes > tonumber(ARGV[1]) then
  return 0
end
redis.call('XADD', KEYS[1], '*', 'data', ARGV[2], 'sizes', ARGV[3])
redis.call('HINCRBY', KEYS[2], 'bytes', bytes)
redis.call('HINCRBY', KEYS[2], 'events', ARGV[4])
return 1
