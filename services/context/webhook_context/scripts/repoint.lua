-- Lets a cold context point to where its pack was copied to: the same pack elsewhere.
-- KEYS: the context. ARGV: the pointer of before | the new one. Returns 1, or 0 where it has moved meanwhile.
local held = redis.call('HMGET', KEYS[1], 'deleted', 'tier', 'pointer')
if held[1] or held[2] ~= 'cold' or held[3] ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'pointer', ARGV[2])
return 1
