-- Puts dead letters back at the end of the stream they came from, as if they had never been tried, with a
-- note of where they were. One by one: a server that fills up half way leaves the rest where it is.
-- What was freed when they were given up is claimed again, for as long as was left then: who sends the event
-- once more sends a duplicate. A delivery that has claimed it meanwhile keeps it; both are worked on.
-- Stands behind `same_delivery.lua`.
-- KEYS 1: the dead letters. 2: the stream. ARGV 1: who waits for their end ('' for nobody), then ids.
-- Returns the ids that were there.
local FORGOTTEN = { cause = true, detail = true, fingerprint = true, attempt = true, first_id = true,
  canary = true, redriven_from = true, redrives = true, freed = true }

local function claim_again(id, freed)
  local owner
  for key, digest, left in string.gmatch(freed, '([^ :]+):([^ :]*):(%d+)') do
    local record, ms = 'dedup:{' .. KEYS[2] .. '}:' .. key, math.max(tonumber(left), 1)
    if not owner then
      -- The record of the delivery's id comes first.
      owner = string.sub(key, 1, 7)
      local answer, found = standing(record, nil, owner, id, digest, math.huge)
      if not answer then
        remember(found, record, nil, owner, id, digest, ms)
      end
    elseif redis.call('EXISTS', record) == 0 then
      -- Of what is signed: as `remember` has it, the digest is that record's owner.
      redis.call('SET', record, id .. ':' .. digest, 'PX', ms)
    end
  end
end

local moved = {}
for at = 2, #ARGV do
  local id = ARGV[at]
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  if found then
    local entry, redrives, event_id, freed = {}, 0, '', ''
    for field = 1, #found[2], 2 do
      local name, value = found[2][field], found[2][field + 1]
      if name == 'id' then
        event_id = value
      elseif name == 'freed' then
        freed = value
      end
      if name == 'redrives' then
        redrives = tonumber(value) or 0
      elseif not FORGOTTEN[name] then
        entry[#entry + 1] = name
        entry[#entry + 1] = value
      end
    end
    entry[#entry + 1] = 'redriven_from'
    entry[#entry + 1] = id
    entry[#entry + 1] = 'redrives'
    entry[#entry + 1] = redrives + 1
    if ARGV[1] ~= '' then
      entry[#entry + 1] = 'canary'
      entry[#entry + 1] = ARGV[1] .. '/' .. id
    end
    redis.call('XADD', KEYS[2], '*', unpack(entry))
    claim_again(event_id, freed)
    redis.call('XDEL', KEYS[1], id)
    moved[#moved + 1] = id
  end
end
return moved
