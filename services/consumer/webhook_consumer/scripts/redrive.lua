-- Puts dead letters back at the end of the stream they came from, as if they had never been tried, with a
-- note of where they were. One by one: a server that fills up half way leaves the rest where it is.
-- KEYS 1: the dead letters. 2: the stream. ARGV 1: who waits for their end ('' for nobody), then ids.
-- Returns the ids that were there.
local FORGOTTEN = { cause = true, detail = true, fingerprint = true, attempt = true, first_id = true,
  canary = true, redriven_from = true, redrives = true }
local moved = {}
for at = 2, #ARGV do
  local id = ARGV[at]
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  if found then
    local entry, redrives = {}, 0
    for field = 1, #found[2], 2 do
      local name, value = found[2][field], found[2][field + 1]
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
    redis.call('XDEL', KEYS[1], id)
    moved[#moved + 1] = id
  end
end
return moved
