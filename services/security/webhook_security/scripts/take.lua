-- Takes tokens for a batch of deliveries, from the buckets of all replicas, all or nothing per delivery.
--
-- KEYS  1 the sources that were active lately, 2 the bucket of everything,
--       then three per group: its source's share of that, its tool's bucket, its tenant's bucket.
-- ARGV  1 how long a source counts as active, 2 how long a bucket takes to fill (microseconds both),
--       3 rate of everything, then three per group: deliveries, the tool's rate, the tenant's rate.
--       Rates are per second; 0 is no limit.
-- Returns three numbers per group: how many may go, which limit stopped the next one (0 none, 1 everything,
-- 2 the tool's, 3 the tenant's), and after how many milliseconds it is worth to come again.
--
-- A bucket is counted in millionths of a token, so that every number here is whole: a rate of r per second
-- adds r millionths in a microsecond. A bucket that is not there is full.
--
-- Fairness: one half of the bucket of everything goes to who comes first. The other half is kept in equal
-- shares for the sources that are active, each refilled at an equal part of the rate, so that a noisy one
-- finds its own share empty and the next one its share untouched. One source alone has both halves.

local TOKEN = 1000000
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local window, fill = tonumber(ARGV[1]), tonumber(ARGV[2])
local buckets = {}

local function bucket(key, rate, capacity)
  local found = buckets[key]
  if found then return found end
  found = {level = capacity}
  buckets[key] = found
  local kept = redis.call('GET', key)
  if kept then
    local level, at = string.match(kept, '^(%d+) (%d+)$')
    -- After a failover the clock may have gone back.
    local passed = math.max(0, now - at)
    -- So much fills it whatever the rate; more would leave what a number can hold exactly.
    passed = math.min(passed, fill + TOKEN)
    found.level = math.min(capacity, level + math.floor(rate * passed))
  end
  return found
end

local function capacity_of(rate)
  return math.max(TOKEN, rate * fill)
end

local seen = {}
for i = 3, #KEYS, 3 do
  seen[#seen + 1] = string.format('%.0f', now)
  seen[#seen + 1] = KEYS[i]
end
redis.call('ZADD', KEYS[1], unpack(seen))

-- Only looked at when there is little left, which is rare.
local counted
local function active()
  if not counted then
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now - window))
    counted = redis.call('ZCARD', KEYS[1])
  end
  return counted
end

local rate = tonumber(ARGV[3])
local all = bucket(KEYS[2], rate, capacity_of(rate))
local half = math.floor(capacity_of(rate) / 2)
local answer = {}

for i = 3, #KEYS, 3 do
  local wanted, tool_rate, tenant_rate = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local free, limit, refill = all.level, 1, rate
  local share
  if free - half < wanted * TOKEN then
    share = bucket(KEYS[i], rate / active(), (capacity_of(rate) - half) / active())
    free = math.min(free, math.max(0, free - half) + share.level)
    refill = rate / active()
  end
  local own = {}
  for place, own_rate in ipairs({tool_rate, tenant_rate}) do
    if own_rate > 0 then
      local found = bucket(KEYS[i + place], own_rate, capacity_of(own_rate))
      own[#own + 1] = found
      if found.level < free then free, limit, refill = found.level, place + 1, own_rate end
    end
  end
  local taken = math.min(wanted, math.floor(free / TOKEN))
  local spent = taken * TOKEN
  if share then
    share.level = math.max(0, share.level - math.max(0, spent - math.max(0, all.level - half)))
  end
  all.level = all.level - spent
  for _, found in ipairs(own) do found.level = found.level - spent end
  answer[#answer + 1] = taken
  if taken == wanted then
    answer[#answer + 1] = 0
    answer[#answer + 1] = 0
  else
    answer[#answer + 1] = limit
    answer[#answer + 1] = math.max(1, math.ceil((TOKEN - (free - spent)) / refill / 1000))
  end
end

local lives = math.ceil(fill / 1000) + 1000
for key, found in pairs(buckets) do
  redis.call('SET', key, string.format('%.0f %.0f', math.floor(found.level), now), 'PX', lives)
end
return answer
