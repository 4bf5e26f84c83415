-- Moves entries that are given up from the stream to the stream of dead letters.
-- KEYS 3: the dead letters; in the stream's slot on a cluster.
-- ARGV 4...: per entry id, cause, detail, attempts. Returns the ids that are not the caller's.
local moved, lost = {}, {}
for at = 4, #ARGV, 4 do
  local id, cause, detail, attempts = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local fields = pending(id) and body(id)
  if fields then
    local added = { cause = cause, detail = detail, attempt = attempts, first_id = first_id(fields, id) }
    redis.call('XADD', KEYS[3], '*', unpack(merged(fields, added)))
    moved[#moved + 1] = id
  else
    lost[#lost + 1] = id
  end
end
finish(moved)
return lost
