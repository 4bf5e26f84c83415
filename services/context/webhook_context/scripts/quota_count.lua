-- Counts a tenant's bytes anew, beside those who write meanwhile.
-- KEYS: what it uses. ARGV: '' to begin, else the sum of what lies there | the number of this count.
-- Returns what it uses, and the number of this count.
local number
if ARGV[1] == '' then
  number = redis.call('HINCRBY', KEYS[1], 'count', 1)
  redis.call('HSET', KEYS[1], 'since', 0)
else
  number = tonumber(ARGV[2])
  -- Of two counts at a time the one that began last holds.
  if number == tonumber(redis.call('HGET', KEYS[1], 'count') or 0) then
    -- What came since the beginning may be in the sum or not: rather too much than too little.
    local since = math.max(tonumber(redis.call('HGET', KEYS[1], 'since') or 0), 0)
    redis.call('HSET', KEYS[1], 'bytes', tonumber(ARGV[1]) + since, 'counted', number)
  end
end
return {tonumber(redis.call('HGET', KEYS[1], 'bytes') or 0), number}
