#!lua flags=allow-oom
-- Does what is due, for all nodes.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  lease number      ARGV[5]  nonce
-- ARGV[6]  how many things to do
-- ARGV[7]  what the store's clock must be, at least, as the caller knows; 0:
--          it does not know. A call that took long to get here says that the
--          store stood still, and that others who come back are still behind.
--
-- Returns {now, generation, sequence, done, more, next}.
local LATE, PAUSE = 250000, 1000000
contact()
local num, l = tonumber(ARGV[4]), caller(ARGV[4], ARGV[5])
if not l then return redis.error_reply(LOST) end
local limit, expected = tonumber(ARGV[6]), tonumber(ARGV[7])
if expected > 0 and now - expected > LATE then
  quiet = now + math.min(PAUSE, ttl)
  call('HSET', META, 'quiet', quiet)
end

local done = 0

-- sweep_dead ends sessions of dead leases.
local function sweep_dead()
  local looked = 0
  for _, other in ipairs(all()) do
    local dead = leases[other]
    while not alive(other) and dead[HELD] > 0 do
      if done >= limit or looked >= 2 * limit then return end
      looked = looked + 1
      local name = call('SPOP', INDEX .. other)
      if not name then
        dead[HELD] = 0 -- whatever it says, there is nobody
        changed[other] = true
        break
      end
      local u = user(name)
      if u then
        begin(u)
        done = done + reap()
        finish()
      end
    end
  end
end

-- sweep_graces lets members go whose grace has ended.
local function sweep_graces()
  if done >= limit then return end
  for _, key in ipairs(call('ZRANGEBYSCORE', DUES, '-inf', now, 'LIMIT', 0, limit - done)) do
    local size, rest = string.match(key, '^(%d+):(.*)$')
    local name, topic = string.sub(rest, 1, size), string.sub(rest, size + 1)
    local u = dues[key] == nil and user(name)
    local e = u and u.m[topic]
    if e and e[3] then
      begin(u)
      leave(topic, e[3])
      finish()
    elseif dues[key] == nil then
      dues[key] = false -- whatever it says, there is nobody
    end
    done = done + 1
  end
end

-- sweep_seen forgets users that were last seen too long ago, or before too
-- many others.
local function sweep_seen()
  local room, keep = limit - done, l[KEEP]
  if room <= 0 then return end
  if keep > 0 then
    local old = call('ZRANGEBYSCORE', SEEN, '-inf', now - keep, 'LIMIT', 0, room)
    if #old > 0 then call('ZREM', SEEN, unpack(old)) end
    done = done + #old
    room = room - #old
  end
  local excess = math.min(room, call('ZCARD', SEEN) - MAXSEEN)
  if excess > 0 then
    call('ZPOPMIN', SEEN, excess)
    done = done + excess
  end
end

if holding == 0 and quiet <= now then
  sweep_dead()
  sweep_graces()
  flush()
  sweep_seen()
  bury()
end
local more, next = agenda(num, l[KEEP])
return {now, gen, seq, done, more, next}
