-- How a context stands to a member of a segment. Nobody who has lost the lease of a move can let it count
-- afterwards: such a move is given up here.
-- KEYS: the context. ARGV: the pointer | after how long an abandoned copy is dropped, ms.
-- Returns 4 where somebody may let it count still, 3 where it is about to be forgotten, 2 where the context is
-- unknown, 1 where it points there, 0 where it never will.
local held = redis.call('HMGET', KEYS[1], 'version', 'tier', 'pointer', 'dropping', 'copying', 'copying_until')
if not held[1] then
  return 2
end
if held[2] == 'cold' and held[3] == ARGV[1] then
  return 1
end
if string.find(held[4] or '', 'c|' .. ARGV[1] .. '@', 1, true) then
  return 3
end
if held[5] then
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  if tonumber(held[6]) > now then
    return 4
  end
  local dropped = held[5] .. '@' .. (now + tonumber(ARGV[2])) .. ','
  redis.call('HSET', KEYS[1], 'dropping', (held[4] or '') .. dropped)
  redis.call('HDEL', KEYS[1], 'copying', 'copying_until')
end
return 0
