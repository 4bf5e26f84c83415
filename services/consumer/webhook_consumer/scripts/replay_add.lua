-- Queues archived events once more, and notes how far the replay has come: what stands at or before that
-- position has been queued by it before, and is passed over. So it may be repeated freely.
-- KEYS 1: stream. 2: how far the replay has come in it. ARGV: id of the replay, how long its position is
-- kept (ms), then per event, in order: position, how many values, names and values.
-- Returns how many were queued.
local reached = redis.call('GET', KEYS[2]) or ''
local at, count = 3, 0
local latest = reached
while at <= #ARGV do
  local position, size = ARGV[at], tonumber(ARGV[at + 1])
  if position > reached then
    redis.call('XADD', KEYS[1], '*', 'replay', ARGV[1], unpack(ARGV, at + 2, at + 1 + size))
    latest = position
    count = count + 1
  end
  at = at + 2 + size
end
if count > 0 then
  redis.call('SET', KEYS[2], latest, 'PX', ARGV[2])
end
return count
