-- Deletes all dictionaries of a tenant whose keys have been destroyed: nothing that needs them opens.
-- KEYS[1] the key table, KEYS[2] the index, then the dictionaries.
-- Returns how many were deleted; -1 while the tenant has keys.
if redis.call('HEXISTS', KEYS[1], 'destroyed') == 0 then
  return -1
end
redis.call('DEL', KEYS[2])
local deleted = 0
for i = 3, #KEYS do
  deleted = deleted + redis.call('DEL', KEYS[i])
end
return deleted
