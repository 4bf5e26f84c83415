-- Quarantined events, newest first, without their sealed bodies.
--
-- KEYS  1 stream
-- ARGV  1 where to begin: an id, "(" and an id, or "+"   2 the oldest id   3 how many to look at
--       4 how many to give   5 tool or ""   then the tenants whose events may be given; none means all
-- Returns where to go on, or "" at the end; then per event: id, fields without the body, its bytes.

local tenants = nil
for at = 6, #ARGV do
  tenants = tenants or {}
  tenants[ARGV[at]] = true
end

local looked, most, size = 0, tonumber(ARGV[3]), tonumber(ARGV[4])
local position = ARGV[1]
local found = { '' }
while looked < most and #found < 1 + size * 3 do
  -- Few at a time: each comes with its body.
  local entries = redis.call('XREVRANGE', KEYS[1], position, ARGV[2], 'COUNT', 10)
  if #entries == 0 then
    return found
  end
  for _, entry in ipairs(entries) do
    looked = looked + 1
    position = '(' .. entry[1]
    local fields, tool, tenant, bytes = {}, '', '', 0
    for at = 1, #entry[2], 2 do
      local name, value = entry[2][at], entry[2][at + 1]
      if name == 'sealed' then
        bytes = #value
      else
        fields[#fields + 1] = name
        fields[#fields + 1] = value
      end
      if name == 'tool' then tool = value end
      if name == 'tenant' then tenant = value end
    end
    if (ARGV[5] == '' or tool == ARGV[5]) and (not tenants or tenants[tenant]) then
      found[#found + 1] = entry[1]
      found[#found + 1] = fields
      found[#found + 1] = bytes
      if #found == 1 + size * 3 then
        break
      end
    end
  end
end
found[1] = position
return found
