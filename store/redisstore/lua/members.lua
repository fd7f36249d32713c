#!lua flags=no-writes
-- A page of a topic's members.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  topic
-- ARGV[5]  where to begin: "-", or "(" and a user
-- ARGV[6]  how many
--
-- Returns {now, generation, sequence, hold for, cut, leases, users, packed
-- users, packed metadata}; see look.lua and user.lua.
look()
if holding > 0 then return {now, gen or '', seq, holding - now, cut, {}, {}, {}, {}} end
local names = call('ZRANGE', TOPIC .. ARGV[4], ARGV[5], '+', 'BYLEX', 'LIMIT', 0, ARGV[6])
local recs, metas = {}, {}
if #names > 0 then
  recs = call('HMGET', USERS, unpack(names))
  if call('EXISTS', METAS) == 1 then metas = call('HMGET', METAS, unpack(names)) end
end
return {now, gen, seq, 0, cut, call('HGETALL', LEASES), names, recs, metas}
