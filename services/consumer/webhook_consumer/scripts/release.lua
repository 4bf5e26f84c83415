-- Hands back what was not started: idle long enough that the next look for abandoned entries takes it,
-- and without the delivery that led to nothing. ARGV 4: idle time (ms). ARGV 5: ids.
-- Returns how many were handed back.
local count = 0
for _, id in ipairs(split(ARGV[5])) do
  local row = pending(id)
  if row then
    redis.call('XCLAIM', KEYS[1], group, me, 0, id, 'IDLE', ARGV[4], 'RETRYCOUNT', math.max(row[4] - 1, 0), 'JUSTID')
    count = count + 1
  end
end
return count
