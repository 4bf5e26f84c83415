-- Begins a replay, or goes on with one. KEYS 1: HASH of the replay.
-- ARGV: what it asks for, time until which it takes events (ms), how long to remember it (ms).
-- Returns what it asked for when it began, and its time.
redis.call('HSETNX', KEYS[1], 'wanted', ARGV[1])
redis.call('HSETNX', KEYS[1], 'until_ms', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('HMGET', KEYS[1], 'wanted', 'until_ms')
