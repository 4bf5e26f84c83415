-- Makes pending entries that have been idle for long enough look abandoned, one page of the list per call, so
-- that every worker's next look takes some of them over. Their owners and deliveries stay as they are.
-- KEYS 1: stream. ARGV: group, idle time (ms), how idle they become (ms), where to go on, page size.
-- Returns where to go on ('' at the end), and how many there were.
local group, idle, page = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local rows = redis.call('XPENDING', KEYS[1], group, ARGV[4], '+', page)
local count = 0
for _, row in ipairs(rows) do
  if row[3] >= idle then
    local silent = math.max(tonumber(ARGV[3]), row[3])
    redis.call('XCLAIM', KEYS[1], group, row[2], 0, row[1], 'IDLE', silent, 'JUSTID')
    count = count + 1
  end
end
local last = rows[#rows]
return { #rows == page and '(' .. last[1] or '', count }
