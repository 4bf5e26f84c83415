-- Puts the keys of one tenant under another master key: all that are named, or none.
-- KEYS[1] the key table. ARGV: the key that is to seal from now on and its entry, both '' to leave that;
--   the one that seals so far; then for each key its id, its entry as it was read, its new entry.
-- Returns 1; 0 where the table is not as it was read, to be read again; -1 where the keys were destroyed.
if redis.call('HEXISTS', KEYS[1], 'destroyed') == 1 then
  return -1
end
if redis.call('HGET', KEYS[1], 'current') ~= ARGV[3] then
  return 0
end
for i = 4, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then
    return 0
  end
end
for i = 4, #ARGV, 3 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
end
if ARGV[1] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], 'current', ARGV[1])
end
return 1
