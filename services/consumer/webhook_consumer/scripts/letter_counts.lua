-- Counts dead letters that died of the same thing, newest first.
-- KEYS 1: the dead letters. ARGV 5: newest id to look at. 6: most to look at.
-- Returns where to go on ('' at the end), how many were looked at, then per kind: fingerprint, tool, cause,
-- detail, count, newest id, oldest id.
local rows = redis.call('XREVRANGE', KEYS[1], ARGV[5], '-', 'COUNT', ARGV[6])
local kinds, order = {}, {}
for _, row in ipairs(rows) do
  local is = as_table(row[2])
  if matches(is) then
    local tool = tool_of(is)
    local key = table.concat({ is.fingerprint or '', tool, is.cause or '' }, '\31')
    local kind = kinds[key]
    if not kind then
      kind = { is.fingerprint or '', tool, is.cause or '', is.detail or '', 0, row[1], row[1] }
      kinds[key] = kind
      order[#order + 1] = kind
    end
    kind[5] = kind[5] + 1
    kind[7] = row[1]
  end
end
local reply = { #rows >= tonumber(ARGV[6]) and '(' .. rows[#rows][1] or '', #rows }
for _, kind in ipairs(order) do
  for _, value in ipairs(kind) do
    reply[#reply + 1] = value
  end
end
return reply
