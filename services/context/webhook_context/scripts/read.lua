-- Reads a context at one instant: its fields, all events that are not folded yet, the newest ones, and
-- the pack where these lie in one that is in Redis.
-- KEYS: the context, the order of its events, its packs.
-- ARGV: how many of the newest events | 1 with their payloads | 1 with the vector |
--   1 where what is not packed, with the excerpt of what is, will do |
--   0, or note that it was read, for a hot context at most once in so many ms.
-- Returns {fields, event ids, sealed events, sealed payloads, events that only the pack has, pack};
--   the events oldest first, without those of the pack.
local fields = redis.call('HMGET', KEYS[1], 'version', 'count', 'folded', 'created', 'updated', 'deleted',
  'tool', 'kind', 'importance', 'dirty', 'requests', 'snapshot', 'enrichment', ARGV[3] == '1' and 'vector' or '-',
  'tier', 'pinned', 'pointer', 'checksum', ARGV[4] == '1' and 'excerpt' or '-', 'reads',
  'packed', 'source', 'dropping', 'accessed')
local count, newest = tonumber(fields[2] or 0), tonumber(ARGV[1])
local packed = (fields[21] and fields[22] ~= 'hot') and tonumber(fields[21]) or 0

if ARGV[5] ~= '0' and fields[1] and not fields[6] then
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  if fields[17] then
    fields[20] = redis.call('HINCRBY', KEYS[1], 'reads', 1)
  end
  if fields[17] or now - tonumber(fields[24] or 0) >= tonumber(ARGV[5]) then
    redis.call('HSET', KEYS[1], 'accessed', now)
    redis.call('HINCRBY', KEYS[1], 'accesses', 1)
  end
end

local first = math.min(tonumber(fields[3] or 0), math.max(count - newest, 0))
if ARGV[4] == '1' then
  first = math.max(first, packed)
end
if first >= count then
  return {fields, {}, {}, {}, packed, false}
end

-- A context that has just become cold has its pack in Redis still, the same bytes.
local function pack()
  local name = fields[15] == 'warm' and fields[17] or nil
  if not name then
    for old in string.gmatch(fields[23] or '', 'w|([^@]+)@') do
      name = old
    end
  end
  return name and redis.call('HGET', KEYS[3], name)
end

-- Lua's stack holds a few thousand values: many fields are read in portions.
local function values(prefix, ids, from)
  local found = {}
  for start = from, #ids, 1000 do
    local names = {}
    for i = start, math.min(start + 999, #ids) do
      names[#names + 1] = prefix .. ids[i]
    end
    for _, value in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
      found[#found + 1] = value
    end
  end
  return found
end

local ids = redis.call('LRANGE', KEYS[2], math.max(first - packed, 0), -1)
local payloads = {}
if ARGV[2] == '1' and newest > 0 then
  payloads = values('p:', ids, math.max(#ids - newest + 1, 1))
end
return {fields, ids, values('e:', ids, 1), payloads, packed, first < packed and pack() or false}
