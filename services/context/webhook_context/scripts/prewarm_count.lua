-- Counts what became of a rule's contexts; what was counted before fades.
-- KEYS: the rules of a tenant. ARGV: rule | used | unused | now, ms | half-life, ms.
-- Returns what stands then, "used unused".
local used, unused, at = 0, 0, tonumber(ARGV[4])
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local was_used, was_unused, since = string.match(held, '^(%S+) (%S+) (%S+)$')
  local left = 0.5 ^ (math.max(at - tonumber(since), 0) / tonumber(ARGV[5]))
  used, unused = tonumber(was_used) * left, tonumber(was_unused) * left
end
used, unused = used + tonumber(ARGV[2]), unused + tonumber(ARGV[3])
local counted = string.format('%.3f %.3f', used, unused)
redis.call('HSET', KEYS[1], ARGV[1], counted .. ' ' .. string.format('%d', at))
return counted
