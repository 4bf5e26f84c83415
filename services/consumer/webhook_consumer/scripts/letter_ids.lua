-- Names dead letters, oldest first.
-- KEYS 1: the dead letters. ARGV 5: where to begin ('-' or '(id'). 6: the newest to look at. 7: most to look at.
-- Returns where to go on ('' at the end), then the ids.
local rows = redis.call('XRANGE', KEYS[1], ARGV[5], ARGV[6], 'COUNT', ARGV[7])
local reply = { '' }
for _, row in ipairs(rows) do
  if matches(as_table(row[2])) then
    reply[#reply + 1] = row[1]
  end
end
if #rows >= tonumber(ARGV[7]) then
  reply[1] = '(' .. rows[#rows][1]
end
return reply
