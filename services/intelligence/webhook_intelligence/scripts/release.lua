-- Gives a lease back, or makes it last longer, if it is still ours. KEYS: the lease.
-- ARGV: our token, milliseconds to last from now (0: give back). Returns whether it was ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
