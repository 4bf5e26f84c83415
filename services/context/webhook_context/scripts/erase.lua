-- Lets a deleted context be an erased one, which nothing brings back.
-- KEYS: the context. Returns its version, 0 where there is no such context, -1 where it is not deleted.
local held = redis.call('HMGET', KEYS[1], 'version', 'deleted')
if not held[1] then
  return 0
end
if not held[2] then
  return -1
end
redis.call('HSET', KEYS[1], 'erased', 1)
redis.call('HDEL', KEYS[1], 'expired', 'revived_by')
-- One whose time was over would be forgotten some day, and so be taken for new.
redis.call('PERSIST', KEYS[1])
return tonumber(held[1])
