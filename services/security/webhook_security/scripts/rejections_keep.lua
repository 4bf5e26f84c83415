-- Keeps refused deliveries of one source, and lets the oldest go until the source is within its bounds.
-- Idempotent by rejection id: a caller that does not know whether it ran runs it again.
--
-- KEYS  1 index (score: received, unix ms; member: "<id> <cause>")   2 facts by id   3 deliveries by id
--       4 bytes of the deliveries   5 event id by id of what was accepted on a retry
-- ARGV  1 most of them   2 most bytes   3 longest age, ms   4 now, unix ms
--       then five per rejection: id, received (unix ms), cause, facts, delivery or ""

local index, facts, deliveries, bytes, settled = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local most, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])

local function drop(member)
  local id = string.match(member, '^%S+')
  local size = redis.call('HSTRLEN', deliveries, id)
  if size > 0 then
    redis.call('DECRBY', bytes, size)
  end
  redis.call('HDEL', facts, id)
  redis.call('HDEL', deliveries, id)
  redis.call('HDEL', settled, id)
  redis.call('ZREM', index, member)
end

for at = 5, #ARGV, 5 do
  local id, delivery = ARGV[at], ARGV[at + 4]
  if redis.call('HSETNX', facts, id, ARGV[at + 3]) == 1 then
    redis.call('ZADD', index, ARGV[at + 1], id .. ' ' .. ARGV[at + 2])
    if delivery ~= '' then
      redis.call('HSET', deliveries, id, delivery)
      redis.call('INCRBY', bytes, #delivery)
    end
  end
end

local expired = tonumber(ARGV[4]) - tonumber(ARGV[3])
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', '(' .. expired, 'LIMIT', 0, 1000)) do
  drop(member)
end
local count = redis.call('ZCARD', index)
while count > most or (count > 0 and tonumber(redis.call('GET', bytes) or '0') > most_bytes) do
  drop(redis.call('ZRANGE', index, 0, 0)[1])
  count = count - 1
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[3])
end
return count
