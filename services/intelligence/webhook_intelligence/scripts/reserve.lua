-- Takes from a tenant's budget what fits of several items, in order; what does not fit is passed over.
-- KEYS: day, month. ARGV: most nano-USD of the day, of the month, most tokens of the day (0: no limit),
-- seconds that both are kept, then nano-USD and tokens of each item.
-- Returns nano-USD of the day, of the month, tokens of the day (all with what was taken), then 1 or 0 per item.
local function number(key, field)
  return tonumber(redis.call('HGET', key, field) or '0')
end

local day, month, tokens = number(KEYS[1], 'usd'), number(KEYS[2], 'usd'), number(KEYS[1], 'tokens')
local most_day, most_month, most_tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local taken_usd, taken_tokens = 0, 0
local reply = {0, 0, 0}

for i = 5, #ARGV, 2 do
  local usd, count = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local fits = (most_day == 0 or day + taken_usd + usd <= most_day)
    and (most_month == 0 or month + taken_usd + usd <= most_month)
    and (most_tokens == 0 or tokens + taken_tokens + count <= most_tokens)
  if fits then
    taken_usd = taken_usd + usd
    taken_tokens = taken_tokens + count
  end
  reply[#reply + 1] = fits and 1 or 0
end

if taken_usd > 0 or taken_tokens > 0 then
  redis.call('HINCRBY', KEYS[1], 'usd', string.format('%.0f', taken_usd))
  redis.call('HINCRBY', KEYS[1], 'tokens', string.format('%.0f', taken_tokens))
  redis.call('HINCRBY', KEYS[2], 'usd', string.format('%.0f', taken_usd))
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
reply[1], reply[2], reply[3] = day + taken_usd, month + taken_usd, tokens + taken_tokens
return reply
