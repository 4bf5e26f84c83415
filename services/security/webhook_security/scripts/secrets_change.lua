-- Writes records of one tenant's rotations, unless somebody else wrote meanwhile.
-- KEYS[1] the tenant's records; ARGV[1] the revision that the caller knows, ARGV[2] how many fields to drop,
-- then these fields, then field, record, field, record...
-- Returns the new revision, or -1 where the records are of another one.
local revision = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if revision ~= tonumber(ARGV[1]) then
  return -1
end
local first = 3 + tonumber(ARGV[2])
for i = 3, first - 1 do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
for i = first, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
return redis.call('HINCRBY', KEYS[1], 'revision', 1)
