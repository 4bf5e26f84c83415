-- Lets a few entries of a tool through whose breaker is not closed. A probe that nobody hears of again,
-- because its process died, is given to another one when its lease is over.
-- ARGV 9...: per tool name, how many would go. Returns per tool how many may.
local reply = {}
for at = 9, #ARGV, 2 do
  local tool, asked = ARGV[at], tonumber(ARGV[at + 1])
  local known = redis.call('HGET', KEYS[1], tool)
  local breaker = read(known)
  local granted = 0
  if not known or breaker.state == CLOSED then
    granted = asked
  elseif breaker.state == HALF_OPEN or is_due(breaker) then
    if breaker.state == OPEN then
      breaker = { state = HALF_OPEN, since = now, trips = breaker.trips, good = 0, probes = {} }
    end
    local live = {}
    for _, till in ipairs(breaker.probes) do
      if till > now and till <= now + policy.lease then
        live[#live + 1] = till
      end
    end
    granted = math.max(math.min(policy.probes - #live, asked), 0)
    for _ = 1, granted do
      live[#live + 1] = now + policy.lease
    end
    breaker.probes = live
    redis.call('HSET', KEYS[1], tool, cjson.encode(breaker))
  end
  reply[#reply + 1] = granted
end
return reply
