-- Forgets consumers that hold nothing and have been silent for long. In one step: between looking and
-- deleting nobody can be given an entry that would be deleted with it.
-- KEYS 1: stream. ARGV: group, silent for at least (ms), most at once, a name to keep. Returns the names.
local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if found.err then
  return {}
end
local names = {}
for _, row in ipairs(found) do
  local consumer = {}
  for at = 1, #row, 2 do
    consumer[row[at]] = row[at + 1]
  end
  -- From 7.2 on `idle` is since the last attempt, which a living reader makes all the time.
  if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) and consumer.name ~= ARGV[4] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    names[#names + 1] = consumer.name
    if #names >= tonumber(ARGV[3]) then
      break
    end
  end
end
return names
