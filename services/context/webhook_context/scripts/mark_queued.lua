-- Notes that the enrichment of this bout of dirtiness has been asked for.
-- KEYS: the context. ARGV: the epoch that `append` returned. Returns 1, or 0 where that bout is over.
if redis.call('HGET', KEYS[1], 'dirty') ~= ARGV[1] then
  return 0
end
local clock = redis.call('TIME')
redis.call('HSET', KEYS[1], 'queued', ARGV[1], 'queued_at', clock[1] * 1000 + math.floor(clock[2] / 1000))
return 1
