-- Stands before every script that settles entries. Keys 1 and 2 of such a script are the stream and
-- the lease of the caller's name; arguments 1 to 3 are group, name and the lease's token.
local group, me, token = ARGV[1], ARGV[2], ARGV[3]

-- A lease that nobody holds has run out without a successor: what is pending under the name is still
-- the caller's. A lease that somebody else holds means that it is not.
local holder = redis.call('GET', KEYS[2])
local evicted = holder and holder ~= token

-- The entry's row in the list of pending ones, or nil where it is not the caller's (any more).
local function pending(id)
  if evicted then
    return nil
  end
  return redis.call('XPENDING', KEYS[1], group, id, id, 1, me)[1]
end

-- Many ids come as one argument: packing thousands of arguments costs the client more than this.
local function split(joined)
  local ids = {}
  for id in string.gmatch(joined, '%S+') do
    ids[#ids + 1] = id
  end
  return ids
end

-- Sorts ids into those that are the caller's and those that are not. A batch is usually one run of the
-- caller's pending entries: one look at the run costs a fraction of a look at each of its ids.
local RUN = 100
local function sorted(ids)
  local mine, lost = {}, {}
  for from = 1, #ids, RUN do
    local to = math.min(from + RUN - 1, #ids)
    local held = {}
    if not evicted then
      for _, row in ipairs(redis.call('XPENDING', KEYS[1], group, ids[from], ids[to], to - from + 1, me)) do
        held[row[1]] = true
      end
    end
    for at = from, to do
      local id = ids[at]
      if held[id] or pending(id) then
        mine[#mine + 1] = id
      else
        lost[#lost + 1] = id
      end
    end
  end
  return mine, lost
end

-- The entry's fields as a flat list, or nil where the stream no longer has it.
local function body(id)
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  return found and found[2]
end

local function finish(ids)
  if #ids > 0 then
    redis.call('XACK', KEYS[1], group, unpack(ids))
    redis.call('XDEL', KEYS[1], unpack(ids))
  end
end

-- A flat list of fields as a table, with `added` laid over it.
local function merged(fields, added)
  local seen, all = {}, {}
  for at = 1, #fields, 2 do
    local name = fields[at]
    seen[name] = true
    all[#all + 1] = name
    all[#all + 1] = added[name] or fields[at + 1]
  end
  for name, value in pairs(added) do
    if not seen[name] then
      all[#all + 1] = name
      all[#all + 1] = value
    end
  end
  return all
end

local function first_id(fields, id)
  for at = 1, #fields, 2 do
    if fields[at] == 'first_id' then
      return fields[at + 1]
    end
  end
  return id
end
