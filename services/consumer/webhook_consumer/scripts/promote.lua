-- Puts delayed entries that are due back at the end of the stream.
-- KEYS 1: stream. 2: ZSET of due times (ms). 3: HASH of packed fields. 4: ZSET of first arrivals (ms).
-- 5: clock of due times.
-- ARGV 1: most to move. Returns how many were moved, and in how many ms the next is due (-1: none).
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[5])
  return { 0, -1 }
end
local at = noted_due_time(KEYS[5])
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', at, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  local packed = redis.call('HGET', KEYS[3], id)
  if packed then
    redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(packed)))
  end
  -- One by one: a server that fills up half way leaves the rest where it is.
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
end
local upcoming = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return { #due, upcoming[2] and math.max(tonumber(upcoming[2]) - at, 0) or -1 }
