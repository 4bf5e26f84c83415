-- Leaves nothing of a context but the note that it is deleted, which refuses late writers, and the names
-- of its objects in the cold store, until these are deleted too.
-- KEYS: the context, the order of its events, its packs, its revisions.
-- ARGV: the version and the creation time that were read, or '' and '' for whatever is there |
--   how long the note stays, ms, where it gives way to what happens later; 0 where it stays and does not.
-- Returns {outcome, version, creation time in ms}; outcome: 1 deleted, -1 there is no such context,
-- -2 it has moved.
local held = redis.call('HMGET', KEYS[1], 'version', 'created', 'deleted', 'tier', 'pointer', 'copying',
  'copying_until', 'dropping', 'revived_by')
if not held[1] or held[3] then
  return {-1, 0, 0}
end
if ARGV[1] ~= '' and (held[1] ~= ARGV[1] or held[2] ~= ARGV[2]) then
  return {-2, tonumber(held[1]), tonumber(held[2])}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local dropping = ''
for name in string.gmatch(held[8] or '', '(c|[^@,]+)@') do
  dropping = dropping .. name .. '@' .. now .. ','
end
if held[4] == 'cold' then
  dropping = dropping .. 'c|' .. held[5] .. '@' .. now .. ','
end
if held[6] and string.sub(held[6], 1, 2) == 'c|' then
  -- Somebody is writing it at this moment: now, and once more when that must be over.
  dropping = dropping .. held[6] .. '@' .. held[7] .. ','
end
redis.call('UNLINK', unpack(KEYS))
redis.call('HSET', KEYS[1], 'version', tonumber(held[1]) + 1, 'deleted', now)
if dropping ~= '' then
  redis.call('HSET', KEYS[1], 'dropping', dropping)
end
if ARGV[3] ~= '0' then
  redis.call('HSET', KEYS[1], 'expired', 1)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
if held[9] then
  -- The replay that brought it back once does not do so again.
  redis.call('HSET', KEYS[1], 'revived_by', held[9])
end
return {1, tonumber(held[1]) + 1, tonumber(held[2])}
