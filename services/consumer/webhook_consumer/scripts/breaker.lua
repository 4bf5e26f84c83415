-- The breakers of one stage: one hash, a JSON document per tool. Stands before `observe` and `probe`.
-- KEYS 1: breakers. ARGV 1 to 8: failures that open at least, share of failures that opens (0 to 1), window
-- (ms), time open (ms), longest time open (ms), probes, lease of a probe (ms), now (ms; '' for the server's).
local policy = {
  failures = tonumber(ARGV[1]), share = tonumber(ARGV[2]), window = tonumber(ARGV[3]),
  open = tonumber(ARGV[4]), longest = tonumber(ARGV[5]), probes = tonumber(ARGV[6]),
  lease = tonumber(ARGV[7]),
}
local now = tonumber(ARGV[8])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local function closed()
  return { state = CLOSED, begun = now, ok = 0, bad = 0, ok_before = 0, bad_before = 0 }
end

local function read(text)
  local known, breaker = pcall(cjson.decode, text or '')
  return known and type(breaker) == 'table' and breaker.state and breaker or closed()
end

-- Counts go by two windows: the one that is filling and the one before.
local function roll(breaker)
  -- A clock that was set back must not keep a window for ever.
  local age = math.abs(now - breaker.begun)
  if age >= policy.window then
    local stale = age >= 2 * policy.window
    breaker.ok_before, breaker.bad_before = stale and 0 or breaker.ok, stale and 0 or breaker.bad
    breaker.ok, breaker.bad, breaker.begun = 0, 0, now
  end
end

local function trip(trips)
  local open = math.min(policy.open * 2 ^ math.min(trips - 1, 30), policy.longest)
  return { state = OPEN, since = now, till = now + open, trips = trips }
end

local function is_due(breaker)
  return now >= breaker.till or breaker.till - now > policy.longest
end
