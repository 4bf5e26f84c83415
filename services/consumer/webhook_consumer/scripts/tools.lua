-- Where the entries of a stage are, by tool: of the stream the oldest and the newest, of the delayed the first
-- due; of what is put aside all.
-- KEYS 1: stream. 2: ZSET of due times. 3: HASH of packed fields. 4: ZSET of first arrivals (ms). 5: ZSET of
-- tool and id. ARGV: group, most entries to look at in the stream, and as many of the delayed.
-- Returns waiting, in flight and delayed, each as all there are and as many as were looked at; then per tool
-- its name, waiting, in flight, delayed, put aside, and the age of its oldest (ms).
local MOST_TOOLS = 1000
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local most = tonumber(ARGV[2])
local tools, order = {}, {}

local function count(name, place, since, by)
  local tool = tools[name]
  if not tool then
    tool = { name, 0, 0, 0, 0, 0 }
    tools[name] = tool
    order[#order + 1] = tool
  end
  tool[place] = tool[place] + (by or 1)
  tool[6] = math.max(tool[6], now - tonumber(since or now))
end
local WAITING, IN_FLIGHT, DELAYED, PARKED = 2, 3, 4, 5

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- Done work is deleted: whatever was delivered and is still there is in flight.
local last_ms, last_seq = 0, 0
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
for _, row in ipairs(groups.err and {} or groups) do
  local group = as_table(row)
  if group.name == ARGV[1] then
    last_ms, last_seq = parts(group['last-delivered-id'])
  end
end

local seen = { 0, 0 }
local function look(rows)
  for _, row in ipairs(rows) do
    local ms, seq = parts(row[1])
    local place = (ms < last_ms or (ms == last_ms and seq <= last_seq)) and IN_FLIGHT or WAITING
    local is = as_table(row[2])
    seen[place - 1] = seen[place - 1] + 1
    count(tool_of(is), place, string.match(is.first_id or row[1], '^%d+'))
  end
end
local length = redis.call('XLEN', KEYS[1])
local half = math.floor(most / 2)
look(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', half))
if length > half then
  look(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', math.min(half, length - half)))
end
local in_flight = 0
local summary = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if not summary.err then
  in_flight = summary[1]
end

local ids = redis.call('ZRANGE', KEYS[2], 0, most - 1)
for _, id in ipairs(ids) do
  local packed = redis.call('HGET', KEYS[3], id)
  if packed then
    count(tool_of(as_table(cmsgpack.unpack(packed))), DELAYED, redis.call('ZSCORE', KEYS[4], id) or nil)
  end
end

local cursor = '-'
for _ = 1, MOST_TOOLS do
  local first = redis.call('ZRANGEBYLEX', KEYS[5], cursor, '+', 'LIMIT', 0, 1)[1]
  if not first then
    break
  end
  local tool = string.match(first, '^[^\31]*')
  local aside = redis.call('ZLEXCOUNT', KEYS[5], '[' .. tool .. '\31', '(' .. tool .. '\32')
  count(tool, PARKED, redis.call('ZSCORE', KEYS[4], string.sub(first, #tool + 2)) or nil, aside)
  cursor = '[' .. tool .. '\32'
end

local reply = {
  math.max(length - in_flight, 0), seen[1], in_flight, seen[2], redis.call('ZCARD', KEYS[2]), #ids,
}
for _, tool in ipairs(order) do
  for _, value in ipairs(tool) do
    reply[#reply + 1] = value
  end
end
return reply
