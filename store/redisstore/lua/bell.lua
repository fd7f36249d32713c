#!lua flags=allow-oom
-- Says whether a lease is good and how many orders wait for it.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  lease number      ARGV[5]  nonce
--
-- Returns {now, generation, sequence, number of orders}.
contact()
if not caller(ARGV[4], ARGV[5]) then return redis.error_reply(LOST) end
return {now, gen, seq, call('LLEN', BOX .. ARGV[4])}
