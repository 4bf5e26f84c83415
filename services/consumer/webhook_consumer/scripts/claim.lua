-- Takes over pending entries, one page of the list per call: the caller's own that it does not know of,
-- or anybody's that have been idle for too long. Not XAUTOCLAIM, because that tells no delivery counts
-- and, before 7.0, not which entries have lost their body.
-- KEYS 1: stream. ARGV: group, me, owner ('' for anybody), idle time (ms), where to go on, page size,
-- most to take, ids to leave alone.
-- Returns where to go on ('' at the end), how many bodies were gone, then id, deliveries, fields of each.
local group, me, owner = ARGV[1], ARGV[2], ARGV[3]
local idle, cursor, page, room = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local held = {}
for id in string.gmatch(ARGV[8], '%S+') do
  held[id] = true
end

local list = { 'XPENDING', KEYS[1], group, cursor, '+', page }
if owner ~= '' then
  list[#list + 1] = owner
end
local rows = redis.call(unpack(list))
local reply = { '', 0 }
local gone = {}
for at, row in ipairs(rows) do
  local id = row[1]
  if room == 0 then
    break
  end
  if row[3] >= idle and not held[id] then
    local taken = redis.call('XCLAIM', KEYS[1], group, me, idle, id)[1]
    if taken and taken[2] then
      reply[#reply + 1] = id
      reply[#reply + 1] = row[4] + 1
      reply[#reply + 1] = taken[2]
      room = room - 1
    else
      gone[#gone + 1] = id
    end
  end
  cursor = '(' .. id
  if at == #rows and #rows < page then
    cursor = ''
  end
end
if #rows == 0 then
  cursor = ''
end
if #gone > 0 then
  -- A body that is gone can't be worked on: it was trimmed or deleted behind our back.
  redis.call('XACK', KEYS[1], group, unpack(gone))
end
reply[1] = cursor
reply[2] = #gone
return reply
