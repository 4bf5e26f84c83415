-- Takes events out of a hot context, and all that was made of them.
-- KEYS: the context, the order of its events, its packs, its revisions.
-- ARGV: the version that was read | sealed snapshot of what the other events say | how many events go |
--   their ids... | sealed revisions that stay, the newest first...
-- Returns {outcome, version, generation}; outcome: 1 done, 0 it has moved meanwhile or is not hot, -1 there is
-- none. Copies of that generation and before have those events.
local held = redis.call('HMGET', KEYS[1], 'version', 'deleted', 'pointer', 'copying', 'copying_until',
  'dropping', 'bytes', 'generation')
if not held[1] or held[2] then
  return {-1, 0, 0}
end
if held[1] ~= ARGV[1] or held[3] then
  return {0, 0, 0}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local gone, bytes = tonumber(ARGV[3]), tonumber(held[7] or 0)
for i = 4, 3 + gone do
  local id = ARGV[i]
  bytes = bytes - redis.call('HSTRLEN', KEYS[1], 'e:' .. id) - redis.call('HSTRLEN', KEYS[1], 'p:' .. id)
  redis.call('HDEL', KEYS[1], 'e:' .. id, 'p:' .. id)
  redis.call('LREM', KEYS[2], 0, id)
end
-- Older copies have those events, too: no grace for them.
local dropping = ''
for name in string.gmatch(held[6] or '', '(c|[^@,]+)@') do
  dropping = dropping .. name .. '@' .. now .. ','
end
if held[4] and string.sub(held[4], 1, 2) == 'c|' then
  -- Somebody is writing it at this moment: now, and once more when that must be over.
  dropping = dropping .. held[4] .. '@' .. now .. ',' .. held[4] .. '@' .. held[5] .. ','
end
redis.call('UNLINK', KEYS[3], KEYS[4])
for i = 4 + gone, #ARGV do
  redis.call('RPUSH', KEYS[4], ARGV[i])
end
local version, count = tonumber(held[1]) + 1, redis.call('LLEN', KEYS[2])
local generation = tonumber(held[8] or 0) + 1
redis.call('HDEL', KEYS[1], 'enrichment', 'vector', 'next_vector', 'importance', 'excerpt', 'copying', 'copying_until',
  'dropping', 'queued', 'queued_at')
redis.call('HSET', KEYS[1], 'version', version, 'count', count, 'folded', count, 'snapshot', ARGV[2],
  'bytes', math.max(bytes, 0), 'dirty', version, 'generation', generation)
if dropping ~= '' then
  redis.call('HSET', KEYS[1], 'dropping', dropping)
end
return {1, version, generation}
