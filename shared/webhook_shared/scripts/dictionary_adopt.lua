-- Lets a tenant's dictionary be the newest of its slot, unless another has become so meanwhile.
-- KEYS[1] the index, KEYS[2] the dictionary; ARGV: slot, id of the one that is to be replaced or "", id,
-- what is known of it, sealed bytes.
-- Returns 1, also where that was done before; 0 where another was faster.
local newest = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if newest == ARGV[3] then
  return 1
end
if newest ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[5])
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4], ARGV[1], ARGV[3])
return 1
