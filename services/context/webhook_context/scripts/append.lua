-- Adds one event to its context: once, however often it is called; in any order with others; in any tier.
-- KEYS: the context, the order of its events.
-- ARGV: event id | sealed event | sealed payload or '' | as-of time in microseconds | tool | kind |
--   id of the replay that brings it or '' | 1 to change nothing and only tell.
-- Returns {outcome, version, last change in ms, events not yet folded, epoch to enqueue or 0,
--   1 where the context is not hot, bytes that were added};
-- outcome: 3 created anew after it had been deleted, 2 created, 1 appended, 0 was there,
--   -1 the context is deleted.

-- An enrichment that was asked for and did not come for so long is asked for again.
local REQUEUE_AFTER_MS = 10 * 60 * 1000
-- Of the SHA-1 of an event id; as in packs/packing.py.
local DIGEST_BYTES = 10

local held = redis.call('HMGET', KEYS[1], 'deleted', 'version', 'count', 'folded', 'updated',
  'dirty', 'queued', 'queued_at', 'kind_as_of', 'bytes', 'ids', 'revived_by', 'erased', 'expired')
local replay, dry = ARGV[7], ARGV[8] == '1'
-- What was kept for long enough gives way to what happened since.
local expired = held[1] and held[14] and tonumber(ARGV[4]) > held[1] * 1000
-- A replay brings back what was deleted, but only once, and never what was erased.
if held[1] and not expired and (replay == '' or replay == held[12] or held[13]) then
  return {-1, tonumber(held[2]), 0, 0, 0, 0, 0}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local version, count = tonumber(held[2] or 0), tonumber(held[3] or 0)
local updated = tonumber(held[5] or 0)
local dirty, outcome = held[6], 0

-- What is packed away is known by the digests of its ids: no event needs its pack to be recognised.
local function is_packed(id)
  if not held[11] then
    return false
  end
  local hex = string.sub(redis.sha1hex(id), 1, 2 * DIGEST_BYTES)
  local digest = (string.gsub(hex, '..', function(pair) return string.char(tonumber(pair, 16)) end))
  local at = 0
  repeat
    at = string.find(held[11], digest, at + 1, true)
  until not at or (at - 1) % DIGEST_BYTES == 0
  return at ~= nil
end

if dry then
  if not is_packed(ARGV[1]) and redis.call('HEXISTS', KEYS[1], 'e:' .. ARGV[1]) == 0 then
    outcome = held[1] and 3 or not held[2] and 2 or 1
  end
  return {outcome, version, updated, 0, 0, held[11] and 1 or 0, 0}
end

if not is_packed(ARGV[1]) and redis.call('HSETNX', KEYS[1], 'e:' .. ARGV[1], ARGV[2]) == 1 then
  outcome = 1
  version, count = version + 1, count + 1
  updated = math.max(updated, now)
  local fields = {'version', version, 'count', count, 'updated', updated,
    'bytes', tonumber(held[10] or 0) + #ARGV[2] + #ARGV[3]}
  if held[1] then
    redis.call('HDEL', KEYS[1], 'deleted', 'expired')
    redis.call('PERSIST', KEYS[1])
    if replay ~= '' then
      fields[#fields + 1] = 'revived_by'
      fields[#fields + 1] = replay
    end
  end
  if held[1] or version == 1 then
    outcome = held[1] and 3 or 2
    fields[#fields + 1] = 'created'
    fields[#fields + 1] = now
    fields[#fields + 1] = 'tier'
    fields[#fields + 1] = 'hot'
  end
  if ARGV[3] ~= '' then
    fields[#fields + 1] = 'p:' .. ARGV[1]
    fields[#fields + 1] = ARGV[3]
  end
  if not held[9] or tonumber(ARGV[4]) > tonumber(held[9]) then
    -- For filters only; the sealed events say what holds.
    for _, name in ipairs({{'tool', ARGV[5]}, {'kind', ARGV[6]}, {'kind_as_of', ARGV[4]}}) do
      fields[#fields + 1] = name[1]
      fields[#fields + 1] = name[2]
    end
  end
  if not dirty then
    -- The version that made it dirty names this bout of dirtiness: a late mark for an earlier one
    -- can't silence this one.
    dirty = tostring(version)
    fields[#fields + 1] = 'dirty'
    fields[#fields + 1] = dirty
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('RPUSH', KEYS[2], ARGV[1])
end

local epoch = 0
if dirty and (held[7] ~= dirty or now - tonumber(held[8] or 0) > REQUEUE_AFTER_MS) then
  epoch = tonumber(dirty)
end
return {outcome, version, updated, count - tonumber(held[4] or 0), epoch, held[11] and 1 or 0,
  outcome > 0 and #ARGV[2] + #ARGV[3] or 0}
