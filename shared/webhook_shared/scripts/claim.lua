-- Says which of several deliveries of one event counts, and claims what makes them the same one: as
-- publishing to a stream does, in the same records, so that each queue knows the other's duplicates.
-- Idempotent by event id.
--
-- KEYS  1 record of the delivery's id   2 record of what is signed, where there is one
-- ARGV  1 event id   2 occurrences allowed   3 window, ms   4 digest of the body or ""   5 window of KEYS[2], ms
--       6 "look" to claim nothing, else "claim"
-- Returns "" if this event counts, "!" and the first event's id if it does and is in conflict with that one,
-- else the id of the event that this delivery repeats, after a "~" if it came under another id.
-- Stands behind `same_delivery.lua`.

local record, echo = KEYS[1], KEYS[2]
local id, digest = ARGV[1], ARGV[4]
local owner = string.sub(string.match(record, '}:(.*)$') or record, 1, 7)

local answer, found = standing(record, echo, owner, id, digest, tonumber(ARGV[2]))
if answer then
  return answer
end
if ARGV[6] ~= 'look' then
  remember(found, record, echo, owner, id, digest, ARGV[3], ARGV[5])
end
return found.conflict and '!' .. found.conflict or ''
