-- Puts a context back that Redis does not have: cold, with what its pack says.
-- KEYS: the context, the order of its events, its packs, its revisions.
-- ARGV: how many revisions | sealed revisions, the newest first... | then field, value...
-- Returns 1, or 0 where there is anything of it, be it that it is deleted.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local revisions = tonumber(ARGV[1])
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'tier', 'cold', 'moved', now, 'reads', 0, unpack(ARGV, revisions + 2))
if revisions > 0 then
  redis.call('RPUSH', KEYS[4], unpack(ARGV, 2, revisions + 1))
end
return 1
