-- Reads a context at one instant: its fields, all events that are not folded yet, and the newest ones.
-- KEYS: the context, the order of its events.
-- ARGV: how many of the newest events | 1 with their payloads | 1 with the vector.
-- Returns {fields, event ids, sealed events, sealed payloads}; the events oldest first.
local fields = redis.call('HMGET', KEYS[1], 'version', 'count', 'folded', 'created', 'updated', 'deleted',
  'tool', 'kind', 'importance', 'dirty', 'requests', 'snapshot', 'enrichment', ARGV[3] == '1' and 'vector' or '-')
local count, newest = tonumber(fields[2] or 0), tonumber(ARGV[1])
local first = math.min(tonumber(fields[3] or 0), math.max(count - newest, 0))
if first >= count then
  return {fields, {}, {}, {}}
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

local ids = redis.call('LRANGE', KEYS[2], first, -1)
local payloads = {}
if ARGV[2] == '1' and newest > 0 then
  payloads = values('p:', ids, math.max(#ids - newest + 1, 1))
end
return {fields, ids, values('e:', ids, 1), payloads}
