#!lua flags=no-writes
-- Counts a topic.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  topic
--
-- Returns {now, generation, sequence, hold for, users, sessions, maybe gone}.
look()
local users = call('ZCARD', TOPIC .. ARGV[4])
local sessions = users + (tonumber(call('HGET', COUNTS, ARGV[4])) or 0)
local dead = 0
for _, num in ipairs(all()) do
  if not alive(num) then dead = dead + math.max(0, leases[num][HELD]) end
end
return {now, gen or '', seq, math.max(0, holding - now), users, sessions, math.min(dead, sessions)}
