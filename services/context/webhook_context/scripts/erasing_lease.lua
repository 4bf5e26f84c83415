-- Takes, renews or frees the lease of an erasure.
-- KEYS: the lease. ARGV: whose | for how long, ms; 0 frees it.
-- Returns 1 where it is the caller's now (or was, and is free), 0 where it is somebody else's.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
