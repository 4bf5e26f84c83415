-- Claims what makes deliveries the same one and appends the event, or neither. Idempotent by event id: a
-- caller that does not know whether it ran simply runs it again.
--
-- KEYS  1 stream   2 record of the delivery's id   3 record of what is signed, where no header can change it
--       (all in the stream's own slot; their names are "dedup:{stream}:" and a key)
-- ARGV  1 event id   2 occurrences allowed   3 window, ms   4 digest of the body or ""   5 window of KEYS[3], ms
--       6 tenant   7 tool   8 type   9 received, unix ms   10 schema   11 sealed   12 traceparent or ""
-- Returns "" if the event is in the stream, "!" and the first event's id if it is there in conflict with that
-- one, else the id of the event that this delivery repeats, after a "~" if it came under another id.
--
-- A record lists the events of its key: "id:digest,id:digest". With its punctuation that is 44 bytes for one
-- event, the most that Redis stores in one piece.

local MOST_LISTED = 32
local MOST_CONFLICTS = 10000

local stream, record, echo = KEYS[1], KEYS[2], KEYS[3]
local id, digest = ARGV[1], ARGV[4]
local key_at = #stream + 10
local key = string.sub(record, key_at)

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
local conflict = is_full and first

local owner = string.sub(key, 1, 7)
local signed = echo and redis.call('GET', echo)
if signed then
  local known, whose = string.match(signed, '^([^:]+):(.*)$')
  if known ~= id and whose ~= owner then
    return '~' .. known
  end
end

-- The event goes first: should a later write fail, a repetition may append it twice, which the consumer
-- recognises by its id. The other way round the event would be lost. It carries its keys, so that they are
-- free again if it ends as a dead letter.
local entry = {
  'XADD', stream, '*', 'id', id, 'tenant', ARGV[6], 'tool', ARGV[7], 'type', ARGV[8],
  'received', ARGV[9], 'schema', ARGV[10], 'sealed', ARGV[11],
  'dedup', echo and key .. ' ' .. string.sub(echo, key_at) or key,
}
if ARGV[12] ~= '' then
  entry[#entry + 1] = 'traceparent'
  entry[#entry + 1] = ARGV[12]
end
if conflict then
  entry[#entry + 1] = 'conflict_of'
  entry[#entry + 1] = conflict
end
redis.call(unpack(entry))

-- The window counts from the first event of the key. Past so many, an event in conflict is taken and not listed.
if not taken then
  redis.call('SET', record, id .. ':' .. digest, 'PX', ARGV[3])
elseif count < MOST_LISTED then
  redis.call('SET', record, taken .. ',' .. id .. ':' .. digest, 'KEEPTTL')
end
if echo and not signed then
  redis.call('SET', echo, id .. ':' .. owner, 'PX', ARGV[5])
end
if conflict then
  redis.call(
    'XADD', 'conflicts:{' .. stream .. '}', 'MAXLEN', '~', MOST_CONFLICTS, '*', 'id', id, 'of', conflict,
    'tenant', ARGV[6], 'tool', ARGV[7], 'type', ARGV[8], 'received', ARGV[9]
  )
  return '!' .. conflict
end
return ''
