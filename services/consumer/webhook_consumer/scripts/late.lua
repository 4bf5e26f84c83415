-- How old the oldest entries are, waiting or in flight, but for a few that may be stuck: by this server's clock
-- (ms; 0: there are only few). KEYS 1: stream. ARGV 1: how many are few.
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1] + 1)
local last = oldest[tonumber(ARGV[1]) + 1]
if not last then
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return math.max(now - tonumber(string.match(last[1], '^%d+')), 0)
