#!lua flags=allow-oom
-- Ends a lease at once.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  lease number      ARGV[5]  nonce
-- ARGV[6]  grace, µs         ARGV[7]  cause
--
-- Returns {now, generation, sequence}.
contact()
local l = caller(ARGV[4], ARGV[5])
if l then
  l[END], l[RENEWED], l[GRACE], l[CAUSE] = now, now, now + ARGV[6], ARGV[7]
  changed[tonumber(ARGV[4])] = true
  save()
  bury()
  running = 0
  for _, num in ipairs(all()) do running = math.max(running, leases[num][END]) end
  call('HSET', META, 'running', running)
end
return {now, gen, seq}
