-- Makes a context hot again. Appends since it was packed stay as they are, behind what the pack has.
-- KEYS: the context, the order of its events.
-- ARGV: the pointer that was read | how long its pack stays, ms |
--   then event id, sealed event, sealed payload or '', oldest first; none where the events are all here.
-- Returns 1, 0 where it has moved meanwhile, -1 where the pack's events are needed.
local held = redis.call('HMGET', KEYS[1], 'deleted', 'pointer', 'tier', 'source', 'packed', 'generation',
  'dropping', 'copying', 'bytes', 'copying_until')
if held[1] or held[2] ~= ARGV[1] then
  return 0
end
local bytes = tonumber(held[9] or 0)
if held[4] ~= 'hot' then
  if (#ARGV - 2) / 3 ~= tonumber(held[5]) then
    return -1
  end
  for i = #ARGV - 2, 3, -3 do
    redis.call('HSET', KEYS[1], 'e:' .. ARGV[i], ARGV[i + 1])
    if ARGV[i + 2] ~= '' then
      redis.call('HSET', KEYS[1], 'p:' .. ARGV[i], ARGV[i + 2])
    end
    redis.call('LPUSH', KEYS[2], ARGV[i])
    bytes = bytes + #ARGV[i + 1] + #ARGV[i + 2]
  end
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local due = now + tonumber(ARGV[2])
local dropping = (held[7] or '') .. (held[3] == 'warm' and 'w|' or 'c|') .. held[2] .. '@' .. due .. ','
if held[8] then
  -- Somebody is writing it at this moment.
  dropping = dropping .. held[8] .. '@' .. math.max(due, tonumber(held[10])) .. ','
end
redis.call('HSET', KEYS[1], 'tier', 'hot', 'moved', now, 'generation', tonumber(held[6]) + 1,
  'dropping', dropping, 'bytes', bytes)
redis.call('HDEL', KEYS[1], 'pointer', 'checksum', 'codec', 'stored', 'content', 'packed', 'packed_version',
  'ids', 'excerpt', 'source', 'source_until', 'copying', 'copying_until', 'reads')
return 1
