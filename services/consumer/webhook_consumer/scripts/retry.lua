-- Moves failed entries from the stream to the set of delayed ones. What needs memory is written first:
-- a server that is full refuses it before anything has changed.
-- KEYS 3: ZSET of due times (ms). 4: HASH of packed fields. 5: ZSET of first arrivals (ms). 6: clock of due times.
-- ARGV 4...: per entry id, delay (ms), attempts so far. Returns the ids that are not the caller's.
local from = noted_due_time(KEYS[6])
local moved, lost = {}, {}
for at = 4, #ARGV, 3 do
  local id, delay, attempt = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local fields = pending(id) and body(id)
  if fields then
    local first = first_id(fields, id)
    local packed = cmsgpack.pack(merged(fields, { attempt = attempt, first_id = first }))
    redis.call('HSET', KEYS[4], id, packed)
    redis.call('ZADD', KEYS[3], from + delay, id)
    redis.call('ZADD', KEYS[5], string.match(first, '^%d+'), id)
    moved[#moved + 1] = id
  else
    lost[#lost + 1] = id
  end
end
finish(moved)
return lost
