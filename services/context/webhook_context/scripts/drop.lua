-- Drops what nothing points to any more and whose grace is over.
-- KEYS: the context, the order of its events, its packs.
-- ARGV: 1 drops what is in Redis at once | after how long an abandoned copy is dropped, ms |
--   then names of objects of the cold store that are deleted.
-- Returns the names of objects that are to be deleted from the cold store now.
local held = redis.call('HMGET', KEYS[1], 'source', 'source_until', 'packed', 'copying', 'copying_until',
  'dropping', 'bytes', 'pointer')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local at_once = ARGV[1] == '1'

if held[1] == 'hot' and (at_once or tonumber(held[2]) <= now) then
  local packed, bytes = tonumber(held[3]), tonumber(held[7] or 0)
  for _, id in ipairs(redis.call('LRANGE', KEYS[2], 0, packed - 1)) do
    bytes = bytes - redis.call('HSTRLEN', KEYS[1], 'e:' .. id) - redis.call('HSTRLEN', KEYS[1], 'p:' .. id)
    redis.call('HDEL', KEYS[1], 'e:' .. id, 'p:' .. id)
  end
  redis.call('LTRIM', KEYS[2], packed, -1)
  redis.call('HSET', KEYS[1], 'bytes', math.max(bytes, 0))
  redis.call('HDEL', KEYS[1], 'source', 'source_until')
end

local dropping = held[6] or ''
if held[4] and tonumber(held[5]) <= now then
  -- Whoever wrote it has died; nobody may have begun anew.
  dropping = dropping .. held[4] .. '@' .. (now + tonumber(ARGV[2])) .. ','
  redis.call('HDEL', KEYS[1], 'copying', 'copying_until')
end
if dropping == '' then
  return {}
end

local deleted = {}
for i = 3, #ARGV do
  deleted[ARGV[i]] = true
end
local kept, due = {}, {}
for place, name, at in string.gmatch(dropping, '([wc])|([^@]+)@(%d+),') do
  local over = tonumber(at) <= now
  if name == held[8] then
    -- Never what counts.
  elseif place == 'w' and (over or at_once) then
    redis.call('HDEL', KEYS[3], name)
  elseif not (place == 'c' and deleted[name] and over) then
    kept[#kept + 1] = place .. '|' .. name .. '@' .. at .. ','
    if place == 'c' and over then
      due[#due + 1] = name
    end
  end
end
if #kept == 0 then
  redis.call('HDEL', KEYS[1], 'dropping')
else
  redis.call('HSET', KEYS[1], 'dropping', table.concat(kept))
end
return due
