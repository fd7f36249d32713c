#!lua flags=allow-oom
-- Orders nodes to end sessions of a user, and ends the user's graces.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  user              ARGV[5]  session, or "" for all
-- ARGV[6]  code              ARGV[7]  text
--
-- Returns {now, generation, sequence, told, hold for}.
look()
local told = 0
local u = gen and user(ARGV[4])
if u then
  begin(u)
  end_graces()
  finish()
  for _, x in ipairs(u.rec[4]) do
    if (ARGV[5] == '' or x[SID] == ARGV[5]) and alive(x[NUM]) then
      post(x[NUM], 1, u.name, x[SID], tonumber(ARGV[6]), ARGV[7])
      told = told + 1
    end
  end
  flush()
end
return {now, gen or '', seq, told, math.max(0, holding - now)}
