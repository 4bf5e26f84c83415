-- Moves entries that are given up from the stream to the stream of dead letters.
-- KEYS 3: the dead letters; in the stream's slot on a cluster.
-- ARGV 4...: per entry id, cause, detail, attempts, fingerprint. Returns the ids that are not the caller's.

-- Frees what makes deliveries the same one, where this event holds it: whoever sends the event again is heard.
-- Records list events as "id:digest,id:digest"; the entry names its own ones (publish.lua of the gateway).
-- Returns what is freed, for a redrive to claim again: "key:digest:ms left key:..."; '' where nothing was.
local function unclaim(fields, only_tell)
  local freed = {}
  local is = {}
  for at = 1, #fields, 2 do
    is[fields[at]] = fields[at + 1]
  end
  for key in string.gmatch(is.dedup or '', '%S+') do
    local record = 'dedup:{' .. KEYS[1] .. '}:' .. key
    local listed = redis.pcall('GET', record)
    if type(listed) == 'string' then
      local left = {}
      for each in string.gmatch(listed, '[^,]+') do
        local id, digest = string.match(each, '^([^:]+):?(.*)$')
        if id ~= is.id then
          left[#left + 1] = each
        else
          freed[#freed + 1] = key .. ':' .. digest .. ':' .. redis.call('PTTL', record)
        end
      end
      if not only_tell and #left == 0 then
        redis.call('DEL', record)
      elseif not only_tell then
        redis.call('SET', record, table.concat(left, ','), 'KEEPTTL')
      end
    end
  end
  return table.concat(freed, ' ')
end

local moved, lost = {}, {}
for at = 4, #ARGV, 5 do
  local id, cause, detail, attempts = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local fields = pending(id) and body(id)
  if fields then
    local added = {
      cause = cause, detail = detail, attempt = attempts, fingerprint = ARGV[at + 4],
      first_id = first_id(fields, id),
    }
    local freed = unclaim(fields, true)
    if freed ~= '' then
      added.freed = freed
    end
    redis.call('XADD', KEYS[3], '*', unpack(merged(fields, added)))
    unclaim(fields)
    moved[#moved + 1] = id
  else
    lost[#lost + 1] = id
  end
end
finish(moved)
return lost
