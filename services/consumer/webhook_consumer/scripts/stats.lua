-- Where a stage's entries are, at one instant.
-- KEYS 1: stream. 2: ZSET of due times. 3: ZSET of first arrivals. 4: ZSET of what is put
-- aside. 5: clock of due times. ARGV 1: group.
-- Returns waiting, in flight, delayed, of these due, the age of the oldest in ms (-1: none), and
-- how many are put aside.
local length = redis.call('XLEN', KEYS[1])
local pending = 0
local summary = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if not summary.err then
  pending = summary[1]
end
local oldest = -1
local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if head then
  local first = head[1]
  for at = 1, #head[2], 2 do
    if head[2][at] == 'first_id' then
      first = head[2][at + 1]
    end
  end
  oldest = now - tonumber(string.match(first, '^%d+'))
end
local since = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if since[2] then
  oldest = math.max(oldest, now - tonumber(since[2]))
end
return {
  math.max(length - pending, 0),
  pending,
  redis.call('ZCARD', KEYS[2]),
  redis.call('ZCOUNT', KEYS[2], '-inf', (due_time(KEYS[5]))),
  oldest,
  redis.call('ZCARD', KEYS[4]),
}
