-- Says which of several deliveries of one event counts, and claims what makes them the same one: as
-- publishing to a stream does, in the same records, so that each queue knows the other's duplicates.
-- Idempotent by event id.
--
-- KEYS  1 record of the delivery's id   2 record of what is signed, where there is one
-- ARGV  1 event id   2 occurrences allowed   3 window, ms   4 digest of the body or ""   5 window of KEYS[2], ms
--       6 "look" to claim nothing, else "claim"
-- Returns "" if this event counts, "!" and the first event's id if it does and is in conflict with that one,
-- else the id of the event that this delivery repeats, after a "~" if it came under another id.

local MOST_LISTED = 32

local record, echo = KEYS[1], KEYS[2]
local id, digest = ARGV[1], ARGV[4]

local taken = redis.call('GET', record)
local first, twin, count = nil, nil, 0
if taken then
  for known, body in string.gmatch(taken, '([^,:]+):?([^,]*)') do
    if known == id then
      return ''
    end
    first = first or known
    if digest == '' or body == '' or body == digest then
      twin = twin or known
    end
    count = count + 1
  end
end
local is_full = count >= tonumber(ARGV[2])
if is_full and twin then
  return twin
end

local owner = string.sub(string.match(record, '}:(.*)$') or record, 1, 7)
local signed = echo and redis.call('GET', echo)
if signed then
  local known, whose = string.match(signed, '^([^:]+):(.*)$')
  if known ~= id and whose ~= owner then
    return '~' .. known
  end
end

if ARGV[6] ~= 'look' then
  -- The window counts from the first event of the key.
  if not taken then
    redis.call('SET', record, id .. ':' .. digest, 'PX', ARGV[3])
  elseif count < MOST_LISTED then
    redis.call('SET', record, taken .. ',' .. id .. ':' .. digest, 'KEEPTTL')
  end
  if echo and not signed then
    redis.call('SET', echo, id .. ':' .. owner, 'PX', ARGV[5])
  end
end
return is_full and '!' .. first or ''
