#!lua flags=no-writes
-- The partition as a reader sees it.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
--
-- Returns {now, generation, sequence, hold for, cut, leases}; the leases are
-- numbers and packed leases in turn.
look()
return {now, gen or '', seq, math.max(0, holding - now), cut, call('HGETALL', LEASES)}
