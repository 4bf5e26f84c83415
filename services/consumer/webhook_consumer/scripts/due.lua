-- Stands before scripts that go by due times. A server's clock may be set back, or a server take over whose clock
-- is behind; what was delayed before would then wait for as long as the clock was wrong. So due times are those of
-- a clock that stands still while the server's goes back, and then goes on from there.
-- Its key holds the server's time when it was last noted, and how far it is ahead of that (both ms).
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Not noted more often: most that a due time may be late by, and a queue that waits hardly writes.
local NOTED_EVERY_MS = 1000

-- Returns its time, how far it is ahead of the server's, and whether that is worth noting.
local function due_time(key)
  local seen, ahead = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
  if not seen then
    return now, 0, true
  end
  local passed = now - tonumber(seen)
  ahead = ahead + math.max(-passed, 0)
  return now + ahead, ahead, passed < 0 or passed >= NOTED_EVERY_MS
end

local function noted_due_time(key)
  local at, ahead, is_news = due_time(key)
  if is_news then
    -- A server that is full goes on by what it knew.
    redis.pcall('SET', key, string.format('%.0f %.0f', now, ahead))
  end
  return at
end
