-- Leaves nothing of a context but the note that it is deleted, which refuses late writers.
-- KEYS: the context, the order of its events.
-- ARGV: the version and the creation time that were read, or '' and '' for whatever is there.
-- Returns {outcome, version, creation time in ms}; outcome: 1 deleted, -1 there is no such context,
-- -2 it has moved.
local held = redis.call('HMGET', KEYS[1], 'version', 'created', 'deleted')
if not held[1] or held[3] then
  return {-1, 0, 0}
end
if ARGV[1] ~= '' and (held[1] ~= ARGV[1] or held[2] ~= ARGV[2]) then
  return {-2, tonumber(held[1]), tonumber(held[2])}
end
local clock = redis.call('TIME')
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'version', tonumber(held[1]) + 1,
  'deleted', clock[1] * 1000 + math.floor(clock[2] / 1000))
return {1, tonumber(held[1]) + 1, tonumber(held[2])}
