-- Takes or keeps the lease of a name. KEYS 1: lease. ARGV: my token, a dead holder's token ('' for
-- none), time to live (ms). Returns the holder's token after the call.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  -- Unlike SET this works on a server that is full.
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return holder
end
if not holder or holder == ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  return ARGV[1]
end
return holder
