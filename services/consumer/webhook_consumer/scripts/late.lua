-- How long the oldest entry that nobody was given yet has waited, by this server's clock (ms; 0: there is none).
-- KEYS 1: stream. ARGV 1: group.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
for _, row in ipairs(groups.err and {} or groups) do
  local group = as_table(row)
  if group.name == ARGV[1] then
    local oldest = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    return oldest and math.max(now - tonumber(string.match(oldest[1], '^%d+')), 0) or 0
  end
end
return 0
