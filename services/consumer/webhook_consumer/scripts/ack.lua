-- Acknowledges and deletes what is the caller's, in one step: the effect is durable already.
-- ARGV 4: ids. Returns the ids that are not the caller's.
local mine, lost = sorted(split(ARGV[4]))
finish(mine)
return lost
