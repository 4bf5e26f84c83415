-- Puts one tenant's records back into a server that lost them, from a replica that still has them.
-- KEYS[1] the tenant's records; ARGV[1] the revision that the caller has, then field, record, field, record...
-- Returns the revision that is there now.
local revision = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if revision >= tonumber(ARGV[1]) then
  return revision
end
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'revision', ARGV[1])
return tonumber(ARGV[1])
