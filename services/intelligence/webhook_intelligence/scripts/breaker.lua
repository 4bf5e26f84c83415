-- One breaker, shared by all replicas. KEYS: the breaker. ARGV: what ("ask", "failed", "answered"), failures in a
-- row that open it, milliseconds of its first pause, of its longest, and that a probe may take.
-- Returns milliseconds to stay away (0: call), failures in a row.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local threshold, first, longest, probe = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held = redis.call('HMGET', KEYS[1], 'failures', 'until')
local failures, closed_at = tonumber(held[1] or '0'), tonumber(held[2] or '0')

if ARGV[1] == 'answered' then
  redis.call('DEL', KEYS[1])
  return {0, 0}
end
if ARGV[1] == 'failed' then
  failures = failures + 1
  redis.call('HSET', KEYS[1], 'failures', failures)
  redis.call('PEXPIRE', KEYS[1], 10 * longest)
  if failures >= threshold then
    closed_at = now + math.min(longest, first * 2 ^ math.min(failures - threshold, 30))
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', closed_at))
  end
  return {math.max(0, closed_at - now), failures}
end
if closed_at > now then
  return {closed_at - now, failures}
end
if closed_at > 0 then
  -- Half open: who asks first is the probe; the others stay away until it is back, or must be dead.
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + probe))
end
return {0, failures}
