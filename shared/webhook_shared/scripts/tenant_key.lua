-- The key table of one tenant: which key seals now, and the salt of each key that ever did.
-- KEYS[1] the table; ARGV: a tenant key id and its salt, then more such pairs that the caller holds.
-- The first pair becomes current where there is none yet; all pairs that are missing are put back, so
-- that a server that lost its data learns them again from whoever still knows them.
-- Returns the table as field, value, field, value...
if redis.call('HEXISTS', KEYS[1], 'destroyed') == 1 then
  return redis.call('HGETALL', KEYS[1])
end
if redis.call('HSETNX', KEYS[1], 'current', ARGV[1]) == 1 then
  redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
end
for i = 3, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
return redis.call('HGETALL', KEYS[1])
