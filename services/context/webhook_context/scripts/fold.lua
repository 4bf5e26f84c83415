-- Keeps what the events say together, so that readers need not open them all. Changes no content.
-- KEYS: the context. ARGV: events folded before | events folded now | sealed snapshot.
-- Returns 1, or 0 where another was faster or the context is gone.
local held = redis.call('HMGET', KEYS[1], 'version', 'deleted', 'folded')
if not held[1] or held[2] or (held[3] or '0') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'folded', ARGV[2], 'snapshot', ARGV[3])
return 1
