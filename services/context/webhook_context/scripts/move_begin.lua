-- Begins to copy a context into another tier: takes the lease, names the copy before it exists.
-- KEYS: the context.
-- ARGV: 'w' or 'c' | what the name begins with | what it ends with | lease in ms |
--   after how long an abandoned copy is dropped, ms.
-- Returns {outcome, generation, name}; outcome: 1 begun, -1 there is no such context,
-- -2 somebody else is at it.
local held = redis.call('HMGET', KEYS[1], 'version', 'deleted', 'generation', 'copying', 'copying_until',
  'dropping')
if not held[1] or held[2] then
  return {-1, 0, ''}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if held[4] then
  local left = tonumber(held[5]) - now
  -- No lease is as long as that: it was taken before the clock was set back.
  if left > 0 and left <= tonumber(ARGV[4]) then
    return {-2, 0, ''}
  end
  local dropped = held[4] .. '@' .. (now + tonumber(ARGV[5])) .. ','
  redis.call('HSET', KEYS[1], 'dropping', (held[6] or '') .. dropped)
end
-- Whoever had the lease before can't commit any more.
local generation = tonumber(held[3] or 0) + 1
local name = ARGV[2] .. string.format('%020d', generation) .. '-' .. ARGV[3]
redis.call('HSET', KEYS[1], 'generation', generation, 'copying', ARGV[1] .. '|' .. name,
  'copying_until', now + tonumber(ARGV[4]))
return {1, generation, name}
