-- Says once and for all what became of the writing of a segment, and in the end that it is being deleted.
-- KEYS: the segment. ARGV: 'complete', 'doomed' or 'deleting'. Returns 1, or 0 where it is unknown or another
-- holds.
local held = redis.call('HMGET', KEYS[1], 'born', 'outcome')
if not held[1] or (held[2] and held[2] ~= ARGV[1] and ARGV[1] ~= 'deleting') then
  return 0
end
redis.call('HSET', KEYS[1], 'outcome', ARGV[1])
return 1
