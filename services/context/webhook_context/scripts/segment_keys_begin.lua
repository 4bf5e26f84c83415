-- Begins to make the keys of a segment anew: takes the lease, names the object before it exists.
-- KEYS: the segment, its objects that are to be deleted.
-- ARGV: what the names of its objects begin with | what the new one ends with | lease in ms |
--   after how long an abandoned one is deleted, ms.
-- Returns {outcome, name of the one that counts, name of the new one}; outcome: 1 begun, -1 there is no such
-- segment, -2 somebody else is at it.
local held = redis.call('HMGET', KEYS[1], 'born', 'keys', 'next', 'next_until')
if not held[1] then
  return {-1, '', ''}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if held[3] then
  local left = tonumber(held[4]) - now
  -- No lease is as long as that: it was taken before the clock was set back.
  if left > 0 and left <= tonumber(ARGV[3]) then
    return {-2, '', ''}
  end
  redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), held[3])
end
local name = ARGV[1] .. string.format('%020d', redis.call('HINCRBY', KEYS[1], 'round', 1)) .. '-' .. ARGV[2]
redis.call('HSET', KEYS[1], 'next', name, 'next_until', now + tonumber(ARGV[3]))
return {1, held[2], name}
