-- Gives back what was reserved and not needed.
-- KEYS: what a tenant uses. ARGV: the count in which it was reserved | bytes reserved | bytes kept of them.
local number = tonumber(ARGV[1])
local kept, unused = tonumber(ARGV[3]), tonumber(ARGV[2]) - tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'count', 'counted')
-- A count that began after the reservation knows nothing of it, and may not have seen what was written:
-- rather too much than too little.
redis.call('HINCRBY', KEYS[1], 'since', tonumber(held[1] or 0) > number and kept or -unused)
redis.call('HINCRBY', KEYS[1], 'bytes', tonumber(held[2] or 0) > number and kept or -unused)
return 1
