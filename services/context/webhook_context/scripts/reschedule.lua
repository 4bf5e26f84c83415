-- Ends a lease: says when the context is due next, unless somebody has said so meanwhile.
-- KEYS: the tenant's due times. ARGV: id | the end of the lease | when it is due, '' for never.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then
  return 0
end
if ARGV[3] == '' then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return 1
