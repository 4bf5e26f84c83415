-- Resets the idle time of what the caller holds, so that nobody takes it for abandoned. Does not count
-- as a delivery. ARGV 4: ids. Returns the ids that are not the caller's.
local mine, lost = sorted(split(ARGV[4]))
if #mine > 0 then
  local claim = { 'XCLAIM', KEYS[1], group, me, 0 }
  for _, id in ipairs(mine) do
    claim[#claim + 1] = id
  end
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
end
return lost
