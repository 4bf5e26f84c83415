-- Reads dead letters, newest first, without the sealed bodies.
-- KEYS 1: the dead letters. ARGV 5: newest id to look at ('+' or '(id'). 6: most to look at. 7: most to return.
-- Returns where to go on ('' at the end), then id, fields of each.
local rows = redis.call('XREVRANGE', KEYS[1], ARGV[5], '-', 'COUNT', ARGV[6])
local most = tonumber(ARGV[7])
local reply = { '' }
for at, row in ipairs(rows) do
  if matches(as_table(row[2])) then
    local kept = {}
    for field = 1, #row[2], 2 do
      if row[2][field] ~= 'sealed' then
        kept[#kept + 1] = row[2][field]
        kept[#kept + 1] = row[2][field + 1]
      end
    end
    reply[#reply + 1] = row[1]
    reply[#reply + 1] = kept
    if (#reply - 1) / 2 >= most then
      reply[1] = '(' .. row[1]
      return reply
    end
  end
  if at == #rows and #rows >= tonumber(ARGV[6]) then
    reply[1] = '(' .. row[1]
  end
end
return reply
