-- Appends entries to the audit chain if its head is still the one that they were made to follow.
--
-- KEYS  1 stream (ids: <sequence>-0)   2 sealed head
-- ARGV  1 the head as it was read, or ""   2 the new head   3 oldest sequence to keep
--       then per entry: sequence, previous hash, hash, content
-- Returns 0 if they stand at the end now; -1 if the head is another one: read again and make them anew;
-- else the last sequence that the stream has seen, which is not before the first of these.

if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then
  return -1
end

local last = 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then
      last = tonumber(string.match(info[at + 1], '^%d+'))
    end
  end
end
if #ARGV > 3 and last >= tonumber(ARGV[4]) then
  return last
end

for at = 4, #ARGV, 4 do
  redis.call('XADD', KEYS[1], ARGV[at] .. '-0',
    'previous', ARGV[at + 1], 'hash', ARGV[at + 2], 'content', ARGV[at + 3])
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[3] .. '-0')
return 0
