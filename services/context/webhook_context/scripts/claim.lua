-- Leases contexts whose time has come: until the lease is over nobody else gets them.
-- KEYS: the tenant's due times. ARGV: how many at most | lease in ms. Returns {end of the lease, ids...}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local until_ms = now + tonumber(ARGV[2])
for _, id in ipairs(found) do
  redis.call('ZADD', KEYS[1], until_ms, id)
end
return {until_ms, unpack(found)}
