-- Counts a tenant's bytes anew, beside those who write meanwhile.
-- KEYS: what it uses. ARGV: '' to begin, else the sum of what lies there.
-- Returns what it uses.
if ARGV[1] == '' then
  redis.call('HSET', KEYS[1], 'since', 0)
else
  -- What came since the beginning may be in the sum or not: rather too much than too little.
  local since = math.max(tonumber(redis.call('HGET', KEYS[1], 'since') or 0), 0)
  redis.call('HSET', KEYS[1], 'bytes', tonumber(ARGV[1]) + since)
end
return tonumber(redis.call('HGET', KEYS[1], 'bytes') or 0)
