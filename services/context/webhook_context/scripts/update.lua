-- Compare and set.
-- KEYS: the context, its revisions.
-- ARGV: the version that was read | request id or '' | how many request ids to remember |
--       1 clears the enrichment marks | fields to drop, separated by commas |
--       sealed revision | how many revisions to keep | then field, value...
-- Returns {outcome, version, last change in ms, tier}; outcome: 1 changed, 0 this request had been applied,
-- -1 there is no such context, -2 the version has moved.
local held = redis.call('HMGET', KEYS[1], 'version', 'deleted', 'updated', 'requests', 'tier')
local tier = held[5] or 'hot'
if not held[1] or held[2] then
  return {-1, 0, 0, tier}
end
local requests = held[4] or ''
if ARGV[2] ~= '' and string.find(requests, ARGV[2], 1, true) then
  return {0, tonumber(held[1]), tonumber(held[3]), tier}
end
if held[1] ~= ARGV[1] then
  return {-2, tonumber(held[1]), tonumber(held[3]), tier}
end
for field in string.gmatch(ARGV[5], '[^,]+') do
  redis.call('HDEL', KEYS[1], field)
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local version, updated = tonumber(held[1]) + 1, math.max(now, tonumber(held[3]))
redis.call('HSET', KEYS[1], 'version', version, 'updated', updated, unpack(ARGV, 8))
redis.call('LPUSH', KEYS[2], ARGV[6])
redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[7]) - 1)
if ARGV[2] ~= '' then
  -- Ids of one length, newest first: the string is a ring.
  local kept = string.sub(ARGV[2] .. ',' .. requests, 1, (#ARGV[2] + 1) * tonumber(ARGV[3]))
  redis.call('HSET', KEYS[1], 'requests', kept)
end
if ARGV[4] == '1' then
  redis.call('HDEL', KEYS[1], 'dirty', 'queued', 'queued_at')
end
return {1, version, updated, tier}
