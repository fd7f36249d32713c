#!lua flags=allow-oom
-- Renews a lease, and tells its node what there is to do.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  lease number      ARGV[5]  nonce
-- ARGV[6]  sessions held     ARGV[7], ARGV[8]  the halves of their digest
-- ARGV[9]  1: all that was held is asserted
-- ARGV[10] number of the last order received
--
-- Returns {now, generation, sequence, hold for, reassert, work, next, orders}.
contact()
local num = tonumber(ARGV[4])
local l = caller(ARGV[4], ARGV[5])
if not l then return redis.error_reply(LOST) end
extend(num, l)

-- A mailbox is read by the thousand, so that it blocks nobody.
local box, ack = BOX .. num, tonumber(ARGV[10])
local mail, explained = {}, false
local raw = call('LRANGE', box, 0, 999)
local gone = 0
for _, o in ipairs(raw) do
  local order = decode(o)
  if order[1] <= ack then
    gone = gone + 1
  else
    mail[#mail + 1] = o
    explained = explained or order[2] == 2
  end
end
if gone > 0 then call('LTRIM', box, gone, -1) end
if #raw == 1000 then
  explained = true
  call('SPUBLISH', tag .. 'bell:' .. num, '')
end

local agrees = l[HELD] == tonumber(ARGV[6]) and l[HIGH] == tonumber(ARGV[7]) and l[LOW] == tonumber(ARGV[8])
if holding > 0 then
  if ARGV[9] ~= '1' then
    -- What this node has not told yet must not be missed.
    hold_until(now + ttl, now)
    holding = hold
  else
    if agrees then
      l[ASSERTED] = 1
      changed[num] = true
    end
    local over = not forgot
    for _, other in ipairs(all()) do
      if alive(other) and leases[other][ASSERTED] == 0 then over = false end
    end
    if over then
      holding = 0
      call('HSET', META, 'hold', 0)
    end
  end
end
save()
local work, next = agenda(num, l[KEEP])
return {now, gen, seq, math.max(0, holding - now), (agrees or explained) and 0 or 1, work, next, mail}
