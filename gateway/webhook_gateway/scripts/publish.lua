-- Claims what makes deliveries the same one and appends the event, or neither. Idempotent by event id: a
-- caller that does not know whether it ran simply runs it again.
--
-- KEYS  1 stream   2 record of the delivery's id   3 record of what is signed, where no header can change it
--       (all in the stream's own slot; their names are "dedup:{stream}:" and a key)
-- ARGV  1 event id   2 occurrences allowed   3 window, ms   4 digest of the body or ""   5 window of KEYS[3], ms
--       6 tenant   7 tool   8 type   9 received, unix ms   10 schema   11 sealed   12 traceparent or ""
-- Returns "" if the event is in the stream, "!" and the first event's id if it is there in conflict with that
-- one, else the id of the event that this delivery repeats, after a "~" if it came under another id.
-- Stands behind `same_delivery.lua`.

local MOST_CONFLICTS = 10000

local stream, record, echo = KEYS[1], KEYS[2], KEYS[3]
local id, digest = ARGV[1], ARGV[4]
local key_at = #stream + 10
local key = string.sub(record, key_at)
local owner = string.sub(key, 1, 7)

local answer, found = standing(record, echo, owner, id, digest, tonumber(ARGV[2]))
if answer then
  return answer
end
local conflict = found.conflict

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

remember(found, record, echo, owner, id, digest, ARGV[3], ARGV[5])
if conflict then
  redis.call(
    'XADD', 'conflicts:{' .. stream .. '}', 'MAXLEN', '~', MOST_CONFLICTS, '*', 'id', id, 'of', conflict,
    'tenant', ARGV[6], 'tool', ARGV[7], 'type', ARGV[8], 'received', ARGV[9]
  )
  return '!' .. conflict
end
return ''
