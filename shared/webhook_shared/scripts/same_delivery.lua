-- Stands before every script that claims what makes deliveries the same one; they share the records.
--
-- A record lists the events of its key: "id:digest,id:digest". With its punctuation that is 44 bytes for one
-- event, the most that Redis stores in one piece.

local MOST_LISTED = 32

-- How an event stands among the deliveries of its kind. Returns two values: the answer to a delivery that
-- does not count, or nil, and what `remember` wants. An event that counts may be in conflict with an earlier
-- one; `found.conflict` is that one's id then.
--   record  of the delivery's id     echo     of what is signed, or nil
--   owner   of the record            allowed  how many events may count
local function standing(record, echo, owner, id, digest, allowed)
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
  local is_full = count >= allowed
  if is_full and twin then
    return twin
  end
  local signed = echo and redis.call('GET', echo)
  if signed then
    local known, whose = string.match(signed, '^([^:]+):(.*)$')
    if known ~= id and whose ~= owner then
      return '~' .. known
    end
  end
  return nil, { taken = taken, count = count, signed = signed, conflict = is_full and first }
end

-- Claims the records for an event that counts. The window counts from the first event of the key. Past so
-- many, an event in conflict is taken and not listed.
local function remember(found, record, echo, owner, id, digest, window_ms, echo_window_ms)
  if not found.taken then
    redis.call('SET', record, id .. ':' .. digest, 'PX', window_ms)
  elseif found.count < MOST_LISTED then
    redis.call('SET', record, found.taken .. ',' .. id .. ':' .. digest, 'KEEPTTL')
  end
  if echo and not found.signed then
    redis.call('SET', echo, id .. ':' .. owner, 'PX', echo_window_ms)
  end
end
