-- Puts entries of the caller's aside until their tool may be worked on. They have not failed: no attempt is
-- counted. What needs memory is written first: a server that is full refuses it before anything has changed.
-- KEYS 3: ZSET of tool and id, parted by a unit separator. 4: HASH of packed fields. 5: ZSET of first
-- arrivals (ms). ARGV 4...: per entry id, tool. Returns the ids that are not the caller's.
local moved, lost = {}, {}
for at = 4, #ARGV, 2 do
  local id, tool = ARGV[at], ARGV[at + 1]
  local fields = pending(id) and body(id)
  if fields then
    local first = first_id(fields, id)
    redis.call('HSET', KEYS[4], id, cmsgpack.pack(merged(fields, { first_id = first })))
    redis.call('ZADD', KEYS[3], 0, tool .. '\31' .. id)
    redis.call('ZADD', KEYS[5], string.match(first, '^%d+'), id)
    moved[#moved + 1] = id
  else
    lost[#lost + 1] = id
  end
end
finish(moved)
return lost
