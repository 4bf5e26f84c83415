-- Removes the oldest quarantined events that are past a bound.
--
-- KEYS  1 stream
-- ARGV  1 the oldest that may stay, unix ms   2 most events   3 most bytes, as MEMORY USAGE counts them
-- Returns how many went for their age, for their number, for their bytes.

local stream = KEYS[1]
local aged = redis.call('XTRIM', stream, 'MINID', ARGV[1])
local counted = redis.call('XTRIM', stream, 'MAXLEN', ARGV[2])

-- What an event takes differs: what is left after the first cut is measured again.
local weighed, most = 0, tonumber(ARGV[3])
for _ = 1, 8 do
  local used = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 0)
  local length = redis.call('XLEN', stream)
  if type(used) ~= 'number' or used <= most or length == 0 then
    break
  end
  local left = math.min(math.floor(length * most / used), length - 1)
  weighed = weighed + redis.call('XTRIM', stream, 'MAXLEN', left)
end
return { aged, counted, weighed }
