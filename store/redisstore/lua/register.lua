#!lua flags=allow-oom
-- Begins an incarnation of a node.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  nonce, which makes the lease unlike any other
-- ARGV[5]  the node's id     ARGV[6]  its name
-- ARGV[7]  its LeaveGrace    ARGV[8]  its KeepLastSeen, both µs
--
-- Returns {now, generation, sequence, lease number}.
contact()
bury()
number = number + 1
call('HSET', META, 'number', number)
local l = {ARGV[5], ARGV[6], 0, 0, 0, 'node-lost', tonumber(ARGV[7]), tonumber(ARGV[8]), 0, 0, 0, 0, 0, ARGV[4], 0}
leases[number] = l
extend(number, l)
save()
return {now, gen, seq, number}
