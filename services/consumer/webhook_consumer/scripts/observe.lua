-- Tells the breakers how entries went, and whoever asks which tools are held.
-- KEYS 2: HASH of paused tools. ARGV 9...: per tool name, entries that went well, that failed, that say nothing.
-- Returns the paused tools, then per breaker that is not closed: tool, state, whether it is due for a probe.
local function observed(breaker, ok, bad, neither)
  if breaker.state == CLOSED then
    roll(breaker)
    breaker.ok, breaker.bad = breaker.ok + ok, breaker.bad + bad
    local failures = breaker.bad + breaker.bad_before
    local all = failures + breaker.ok + breaker.ok_before
    if failures >= policy.failures and failures >= policy.share * all then
      return trip(1)
    end
    return breaker
  end
  if breaker.state == HALF_OPEN then
    if bad > 0 then
      return trip(breaker.trips + 1)
    end
    for _ = 1, math.min(ok + neither, #breaker.probes) do
      table.remove(breaker.probes)
    end
    breaker.good = breaker.good + ok
    if breaker.good >= policy.probes then
      return closed()
    end
  end
  -- What ends while it is open was begun before.
  return breaker
end

for at = 9, #ARGV, 4 do
  local tool, ok, bad, neither = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local known = redis.call('HGET', KEYS[1], tool)
  -- A tool whose entries all go well needs no breaker, until the first fails.
  if known or bad > 0 then
    redis.call('HSET', KEYS[1], tool, cjson.encode(observed(read(known), ok, bad, neither)))
  end
end

local reply = { redis.call('HKEYS', KEYS[2]) }
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  local breaker = read(all[at + 1])
  if breaker.state == CLOSED then
    roll(breaker)
    if breaker.bad + breaker.bad_before == 0 then
      redis.call('HDEL', KEYS[1], all[at])
    end
  else
    reply[#reply + 1] = all[at]
    reply[#reply + 1] = breaker.state
    reply[#reply + 1] = (breaker.state == HALF_OPEN or is_due(breaker)) and 1 or 0
  end
end
return reply
