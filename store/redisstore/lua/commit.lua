#!lua
-- Applies operations in order, in one step.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  lease number      ARGV[5]  nonce
-- ARGV[6]  number of the call, greater than all before
-- ARGV[7]  up to which number all calls are over: those are refused from now
--          on, so that one that was given up and comes late changes nothing
-- ARGV[8]  operations, packed: {{kind, user, session, topics, metadata, away,
--          since, anonymous, limit, when full, challenge, grace, cause}, ...}
--
-- Returns {now, generation, sequence, results}; the results are packed:
-- {status, since, {session, node, name, ...}}.
contact()
local num, l = tonumber(ARGV[4]), caller(ARGV[4], ARGV[5])
if not l then return redis.error_reply(LOST) end
if tonumber(ARGV[6]) <= l[CALLED] then return redis.error_reply('PRESENCE_LATE this call was overtaken') end
l[CALLED] = math.max(l[CALLED], tonumber(ARGV[7]))
changed[num] = true

local DONE, MISSING, FULL, OUTDATED, STALE, TOOLARGE = 0, 1, 2, 3, 4, 5
local ADD, REMOVE, JOIN, QUIT, DESCRIBE, TURN, ENDGRACE = 1, 2, 3, 4, 5, 6, 7
local REPLACE_EVERY = 2000000

local function ref(list, x)
  local of = lease(x[NUM])
  list[#list + 1] = x[SID]
  list[#list + 1] = of[ID]
  list[#list + 1] = of[NAME]
end

-- set_topics makes a session be in these topics.
local function set_topics(x, topics)
  if #topics == 0 and #x < FIRST then return end
  local was, is, different = {}, {}, false
  for j = #x, FIRST, -1 do
    was[x[j]] = true
    x[j] = nil
  end
  for _, t in ipairs(topics) do
    if t ~= '' and not is[t] then
      is[t] = true
      x[#x + 1] = t
      if not was[t] then
        enter(t)
        different = true
      end
    end
  end
  for t in pairs(was) do
    if not is[t] then
      exit(t, now, 'left')
      different = true
    end
  end
  if different then touch_all(x) end -- its list of topics is in every record
end

-- limit decides whether one more session fits, and which must make room.
local function limit(o, u)
  if #u.rec[4] < o[9] then return {} end
  local live = {}
  for _, x in ipairs(u.rec[4]) do
    if alive(x[NUM]) then live[#live + 1] = x end
  end
  local excess = #live + 1 - o[9]
  if excess <= 0 then return {} end
  local oldest = live[1]
  if o[10] == 1 then
    if o[7] > 0 and o[7] < oldest[SINCE] then return nil, {OUTDATED, 0, {}} end
    local at = call('ZSCORE', REPLACED, o[2])
    if not at or now - at >= REPLACE_EVERY then
      call('ZREMRANGEBYSCORE', REPLACED, '-inf', now - REPLACE_EVERY)
      call('ZADD', REPLACED, now, o[2])
      local victims = {}
      for i = 1, math.min(excess, #live) do victims[i] = live[i] end
      return victims
    end
  end
  if o[11] == 1 then post(oldest[NUM], 3, o[2], oldest[SID], 0, '') end
  local list = {}
  ref(list, oldest)
  return nil, {FULL, 0, list}
end

local function add(o)
  local u = user(o[2])
  local x = u and find(u, o[3])
  if x and x[NUM] > num then return {STALE, 0, {}} end
  local victims = {}
  if u and not x and o[9] > 0 then
    local refused
    victims, refused = limit(o, u)
    if refused then return refused end
  end
  if not u then
    u = {name = o[2], rec = {0, 0, {}, {}}, m = {}, n = {}, metas = {}, anonymous = o[8] == 1, away = false, keep = false}
    users[o[2]] = u
    remembered[o[2]] = false
  end
  begin(u)
  if not x then
    x = {o[3], num, now, o[6], 0}
    if o[7] > 0 then
      x[SINCE] = o[7]
      since = o[7]
    else
      local newest = u.rec[4][#u.rec[4]]
      if newest then x[SINCE] = math.max(now, newest[SINCE] + 1) end
    end
    take(num, x)
    local at = #u.rec[4] + 1
    while at > 1 and u.rec[4][at - 1][SINCE] > x[SINCE] do at = at - 1 end
    table.insert(u.rec[4], at, x)
    if u.by then u.by[x[SID]] = x end
    enter('')
  else
    if x[NUM] ~= num then
      -- From a dead lease it comes back: readers had left it out.
      local was = lease(x[NUM])
      local moved = not alive(x[NUM]) or was[ID] ~= l[ID] or was[NAME] ~= l[NAME]
      local old = x[NUM]
      take(num, x)
      drop(old, x[SID])
      change(u)
      if moved then touch_all(x) end
    end
    if x[AWAY] ~= o[6] then
      x[AWAY] = o[6]
      touch_all(x)
    end
  end
  local r = {DONE, x[SINCE], {}}
  if not set_meta(x, o[5]) then
    set_meta(x, '')
    r[1] = TOOLARGE
  end
  set_topics(x, o[4])
  for _, y in ipairs(victims) do
    ref(r[3], y)
    post(y[NUM], 2, u.name, y[SID], 0, '')
    remove(y, now + o[12], 'replaced')
  end
  -- Only now: a user who comes back before the sweep never left.
  reap()
  finish()
  return r
end

local function apply(o)
  if o[1] == ADD then return add(o) end
  local u = user(o[2])
  if not u then return o[1] == ENDGRACE and DONE or MISSING end
  begin(u)
  if o[1] == ENDGRACE then
    end_graces()
    finish()
    return DONE
  end
  local x, status = find(u, o[3]), DONE
  if not x or x[NUM] ~= num then
    status = MISSING
  elseif o[1] == REMOVE then
    reap()
    remove(x, now + o[12], o[13])
  elseif o[1] == JOIN or o[1] == QUIT then
    local topics, quit = {}, {}
    if o[1] == QUIT then
      reap()
      for _, t in ipairs(o[4]) do quit[t] = true end
    end
    for j = FIRST, #x do
      if not quit[x[j]] then topics[#topics + 1] = x[j] end
    end
    if o[1] == JOIN then
      for _, t in ipairs(o[4]) do topics[#topics + 1] = t end
    end
    set_topics(x, topics)
  elseif o[1] == DESCRIBE then
    if not set_meta(x, o[5]) then status = TOOLARGE end
  elseif o[1] == TURN and x[AWAY] ~= o[6] then
    x[AWAY] = o[6]
    touch_all(x)
  end
  finish()
  return status
end

local ops, names, seen = decode(ARGV[8]), {}, {}
for _, o in ipairs(ops) do
  if not seen[o[2]] then
    seen[o[2]] = true
    names[#names + 1] = o[2]
  end
end
prefetch(names)
local results = {}
for i, o in ipairs(ops) do
  local r = apply(o)
  results[i] = type(r) == 'table' and r or {r, 0, {}}
end
flush()
return {now, gen, seq, pack(results)}
