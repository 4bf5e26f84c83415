-- Puts entries that were put aside back at the end of the stream, tool by tool, the oldest of each first.
-- KEYS 1: stream. 2: ZSET of tool and id. 3: HASH of packed fields. 4: ZSET of first arrivals (ms).
-- ARGV: group, how many may wait in the stream afterwards, how many to move though more wait already, most
-- to move, then per tool that may not come back freely: tool, most to move of it.
-- Returns how many were moved.
local MOST_TOOLS = 1000
local allowed = {}
for at = 5, #ARGV, 2 do
  allowed[ARGV[at]] = tonumber(ARGV[at + 1])
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end

local waiting = redis.call('XLEN', KEYS[1])
local summary = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if not summary.err then
  waiting = waiting - summary[1]
end
local left = math.min(math.max(tonumber(ARGV[2]) - waiting, tonumber(ARGV[3])), tonumber(ARGV[4]))

local function tools()
  local found, cursor = {}, '-'
  while #found < MOST_TOOLS do
    local first = redis.call('ZRANGEBYLEX', KEYS[2], cursor, '+', 'LIMIT', 0, 1)[1]
    if not first then
      break
    end
    local tool = string.match(first, '^[^\31]*')
    found[#found + 1] = tool
    cursor = '[' .. tool .. '\32'
  end
  return found
end

local present = {}
for _, tool in ipairs(tools()) do
  if allowed[tool] ~= 0 then
    present[#present + 1] = tool
  end
end
local moved = 0
for at, tool in ipairs(present) do
  -- What one tool leaves of its part, the next ones may have.
  local part = math.ceil(left / (#present - at + 1))
  part = math.min(part, allowed[tool] or part)
  if part > 0 then
    local rows = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. tool .. '\31', '(' .. tool .. '\32', 'LIMIT', 0, part)
    for _, member in ipairs(rows) do
      local id = string.sub(member, #tool + 2)
      local packed = redis.call('HGET', KEYS[3], id)
      if packed then
        redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(packed)))
      end
      -- One by one: a server that fills up half way leaves the rest where it is.
      redis.call('ZREM', KEYS[2], member)
      redis.call('HDEL', KEYS[3], id)
      redis.call('ZREM', KEYS[4], id)
    end
    left = left - #rows
    moved = moved + #rows
  end
end
return moved
