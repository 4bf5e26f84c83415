-- Reads dead letters, newest first, without the sealed bodies.
-- KEYS 1: the dead letters. ARGV: newest id to look at ('+' or '(id'), most to look at, most to return,
-- tool ('' for all), tenant ('' for all).
-- Returns where to go on ('' at the end), then id, fields of each.
local rows = redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])
local most, tool, tenant = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local reply = { '' }
for at, row in ipairs(rows) do
  local kept, is = {}, {}
  for field = 1, #row[2], 2 do
    is[row[2][field]] = row[2][field + 1]
    if row[2][field] ~= 'sealed' then
      kept[#kept + 1] = row[2][field]
      kept[#kept + 1] = row[2][field + 1]
    end
  end
  if (tool == '' or is.tool == tool) and (tenant == '' or is.tenant == tenant) then
    reply[#reply + 1] = row[1]
    reply[#reply + 1] = kept
    if (#reply - 1) / 2 >= most then
      reply[1] = '(' .. row[1]
      return reply
    end
  end
  if at == #rows and #rows >= tonumber(ARGV[2]) then
    reply[1] = '(' .. row[1]
  end
end
return reply
