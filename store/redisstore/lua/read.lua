#!lua flags=no-writes
-- Reads users. A transaction does that in half the time, but Redis takes none
-- when its memory is full.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4..]  users
--
-- Returns {now, generation, sequence, hold for, cut, leases, packed users, last
-- seen, packed metadata}; see look.lua and user.lua.
look()
local packed, seen, metas = {}, {}, {}
for i = 4, #ARGV, 1000 do
  local names = {unpack(ARGV, i, math.min(i + 999, #ARGV))}
  for to, from in pairs({
    [packed] = call('HMGET', USERS, unpack(names)),
    [seen] = call('ZMSCORE', SEEN, unpack(names)),
    [metas] = call('HMGET', METAS, unpack(names)),
  }) do
    for j = 1, #names do to[i + j - 4] = from[j] or false end
  end
end
return {now, gen or '', seq, math.max(0, holding - now), cut, call('HGETALL', LEASES), packed, seen, metas}
