-- A replica says how far it has come, and hears how many others have not come as far as it asks for.
-- KEYS[1] hash: replica to "<changes that it has> <when it said so, seconds>"; ARGV: the replica, the changes
-- that it has, the changes to ask for, and the seconds after which a silent replica counts as gone.
-- The time is the server's, so that clocks need not agree.
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. now)
local behind = 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local has, at = string.match(all[i + 1], '^(%d+) (%d+)$')
  if now - tonumber(at) > tonumber(ARGV[4]) then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= ARGV[1] and tonumber(has) < tonumber(ARGV[3]) then
    behind = behind + 1
  end
end
return behind
