-- Gives a copy up: the lease is free, what was written is dropped after a while.
-- KEYS: the context. ARGV: generation of the copy | after how long it is dropped, ms.
local held = redis.call('HMGET', KEYS[1], 'generation', 'copying', 'dropping', 'deleted')
if held[4] or held[1] ~= ARGV[1] or not held[2] then
  return 0
end
local clock = redis.call('TIME')
local due = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'dropping', (held[3] or '') .. held[2] .. '@' .. due .. ',')
redis.call('HDEL', KEYS[1], 'copying', 'copying_until')
return 1
