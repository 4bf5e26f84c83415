-- Looks at delayed entries, and those that were put aside; changes nothing.
-- KEYS 1: HASH of packed fields. ARGV: where to go on, how many at about.
-- Returns where to go on ('0': nowhere), then per entry id and fields.
local reply = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found = { reply[1] }
for at = 1, #reply[2], 2 do
  found[#found + 1] = reply[2][at]
  found[#found + 1] = cmsgpack.unpack(reply[2][at + 1])
end
return found
