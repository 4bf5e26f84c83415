-- Claims a deduplication key and appends the event, or neither. Idempotent by event id: a caller that
-- does not know whether it ran simply runs it again.
--
-- KEYS  1 stream   2 deduplication key (in the stream's own slot)
-- ARGV  1 event id   2 occurrences allowed   3 window, ms
--       4 tenant   5 tool   6 type   7 received, unix ms   8 schema   9 sealed   10 traceparent or ""
-- Returns "" if the event is in the stream, else the id of the first event of this key.

local id = ARGV[1]
local taken = redis.call('GET', KEYS[2])
if taken then
  local first, count = nil, 0
  for other in string.gmatch(taken, '[^,]+') do
    if other == id then
      return ''
    end
    first = first or other
    count = count + 1
  end
  if count >= tonumber(ARGV[2]) then
    return first
  end
end

-- The event goes first: should the second write fail, a repetition may append it twice, which the
-- consumer recognises by its id. The other way round the event would be lost.
local entry = {
  'XADD', KEYS[1], '*', 'id', id, 'tenant', ARGV[4], 'tool', ARGV[5], 'type', ARGV[6],
  'received', ARGV[7], 'schema', ARGV[8], 'sealed', ARGV[9],
}
if ARGV[10] ~= '' then
  entry[#entry + 1] = 'traceparent'
  entry[#entry + 1] = ARGV[10]
end
redis.call(unpack(entry))

-- The window counts from the first event of the key.
if taken then
  redis.call('SET', KEYS[2], taken .. ',' .. id, 'KEEPTTL')
else
  redis.call('SET', KEYS[2], id, 'PX', ARGV[3])
end
return ''
