-- Makes a verified copy the one that counts. What it replaces stays for a while.
-- KEYS: the context.
-- ARGV: generation | name of the copy | the pointer that was copied, '' for a hot context |
--   the version that was packed, '' where the copy is of a pack | 'warm' or 'cold' |
--   how long what it replaces stays, ms | then field, value...
-- Returns 1, or 0 where the context is gone or has moved meanwhile.
local held = redis.call('HMGET', KEYS[1], 'deleted', 'generation', 'copying', 'pointer', 'version', 'tier',
  'dropping', 'source')
local place = ARGV[5] == 'warm' and 'w|' or 'c|'
if held[1] or held[2] ~= ARGV[1] or held[3] ~= place .. ARGV[2] or (held[4] or '') ~= ARGV[3] then
  return 0
end
if ARGV[4] ~= '' and held[5] ~= ARGV[4] then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local until_ms = now + tonumber(ARGV[6])
if held[4] then
  local old = (held[6] == 'warm' and 'w|' or 'c|') .. held[4] .. '@' .. until_ms .. ','
  redis.call('HSET', KEYS[1], 'dropping', (held[7] or '') .. old)
else
  redis.call('HSET', KEYS[1], 'source', 'hot', 'source_until', until_ms)
end
redis.call('HSET', KEYS[1], 'tier', ARGV[5], 'pointer', ARGV[2], 'moved', now, 'reads', 0, unpack(ARGV, 7))
redis.call('HDEL', KEYS[1], 'copying', 'copying_until')
return 1
