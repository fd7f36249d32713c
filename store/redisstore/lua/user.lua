-- Users, and what happens to them. A user is packed into one field of USERS:
--
--   {flags, seen, {member, ...}, {session, ...}}
--     flags    1 anonymous, 2 away as it was logged last, 4 keep last seen
--     seen     when a session last ended, µs
--     member   {topic, since}, or {topic, since, cause} in grace; "" is first
--     session  {id, lease number, since, away, bytes of metadata, topic...},
--              oldest first
--
-- Everything is read once, changed here, and written by flush.

local JOINED, UPDATED, LEFT = 1, 2, 3
local SID, NUM, SINCE, AWAY, BYTES, FIRST = 1, 2, 3, 4, 5, 6

-- A user whose sessions have more fields than this is not written into the
-- log: followers read it. Else a change of a user with 1,000 sessions would
-- take 30 KB there, and packing it would hold everybody up.
local LARGE, ASK = 128, '?'

local users, dirty = {}, {}                     -- by name; false: nobody knows the user
local counted, placed, dues = {}, {}, {}        -- by topic; by topic and user; by member of DUES
local indexed, remembered, described = {}, {}, {} -- by lease and user; by user; by user
local events, named, begun, rings = {}, {}, nil, {} -- begun: where the log ended before

local function set(of, key, k, v)
  local t = of[key]
  if not t then
    t = {}
    of[key] = t
  end
  t[k] = v
end

local function unpacked(name, raw)
  local r = decode(raw)
  local f = r[1]
  local u = {name = name, rec = r, pack = raw, m = {}, n = {['']= #r[4]}}
  u.anonymous, u.away, u.keep = f % 2 == 1, floor(f / 2) % 2 == 1, f >= 4
  for _, e in ipairs(r[3]) do
    u.m[e[1]] = e
    u.n[e[1]] = u.n[e[1]] or 0
  end
  for _, x in ipairs(r[4]) do
    for j = FIRST, #x do u.n[x[j]] = u.n[x[j]] + 1 end
  end
  return u
end

local function user(name)
  local u = users[name]
  if u == nil then
    local raw = call('HGET', USERS, name)
    u = raw and unpacked(name, raw) or false
    users[name] = u
  end
  return u
end

-- prefetch reads many users at once.
local function prefetch(names)
  for i = 1, #names, 1000 do
    local part = {unpack(names, i, math.min(i + 999, #names))}
    for j, raw in ipairs(call('HMGET', USERS, unpack(part))) do
      users[part[j]] = raw and unpacked(part[j], raw) or false
    end
  end
end

local function packed(u)
  if not u.pack then
    u.rec[1] = (u.anonymous and 1 or 0) + (u.away and 2 or 0) + (u.keep and 4 or 0)
    u.pack = pack(u.rec)
  end
  return u.pack
end

-- find returns a session. A user with many gets an index: a batch may name all
-- of them.
local function find(u, sid)
  if #u.rec[4] < 16 then
    for _, x in ipairs(u.rec[4]) do
      if x[SID] == sid then return x end
    end
    return nil
  end
  if not u.by then
    u.by = {}
    for _, x in ipairs(u.rec[4]) do u.by[x[SID]] = x end
  end
  return u.by[sid]
end

-- The operation under way: the user, since when memberships that begin now
-- do, and what was touched.
local w, since, marks, touched

local function begin(u) w, since, marks, touched = u, now, {}, {} end

local function change(u)
  u.pack = nil
  dirty[u.name] = true
end

-- touch marks a membership as changed, and returns its mark.
local function touch(topic)
  local k = marks[topic]
  if not k then
    k = {topic, UPDATED, ''}
    marks[topic] = k
    touched[#touched + 1] = k
  end
  return k
end

local function touch_all(x)
  touch('')
  for j = FIRST, #x do
    if w.m[x[j]] then touch(x[j]) end
  end
end

-- due_key is a member of DUES: a user and a topic, both of any bytes.
local function due_key(name, topic) return #name .. ':' .. name .. topic end

-- COUNTS holds, of each topic, its sessions less its users: for most topics
-- that is 0, and then there is nothing to hold.
local function enter(topic)
  local e = w.m[topic]
  w.n[topic] = (w.n[topic] or 0) + 1
  local k = touch(topic)
  if not e then
    e = {topic, since}
    w.m[topic] = e
    table.insert(w.rec[3], e)
    k[2] = JOINED
    set(placed, topic, w.name, true)
    return
  end
  counted[topic] = (counted[topic] or 0) + 1
  if e[3] then
    e[3] = nil
    dues[due_key(w.name, topic)] = false
  end
end

local leave

-- exit counts one session less. The last one leaves a grace until due, if that
-- is still to come. In a hold nobody leaves at once.
local function exit(topic, due, cause)
  w.n[topic] = w.n[topic] - 1
  counted[topic] = (counted[topic] or 0) - 1
  touch(topic)
  if w.n[topic] > 0 then return end
  if due > now or holding > 0 then
    w.m[topic][3] = cause
    dues[due_key(w.name, topic)] = due
    return
  end
  leave(topic, cause)
end

leave = function(topic, cause)
  local e = w.m[topic]
  local k = touch(topic)
  k[2], k[3] = LEFT, cause
  if e[3] then dues[due_key(w.name, topic)] = false end
  counted[topic] = (counted[topic] or 0) + 1
  set(placed, topic, w.name, false)
  w.m[topic], w.n[topic] = nil, nil
  for i = #w.rec[3], 1, -1 do
    if w.rec[3][i] == e then table.remove(w.rec[3], i) end
  end
  if topic ~= '' then return end
  -- Who leaves everyone leaves all: no sessions, so only graces are left.
  while #w.rec[3] > 0 do
    local other = w.rec[3][#w.rec[3]]
    leave(other[1], other[3] or cause)
  end
  w.gone = true
  if w.keep and not w.anonymous then remembered[w.name] = w.rec[2] end
end

-- digest is store.Digest of a session's id, as two halves.
local function digest(id)
  if #id == 16 and not string.find(id, '[^0-9a-f]') then
    return tonumber(string.sub(id, 1, 8), 16), tonumber(string.sub(id, 9), 16)
  end
  local hi, lo = 0xcbf29ce4, 0x84222325
  for i = 1, #id do
    lo = bit.bxor(lo, string.byte(id, i)) % 4294967296
    local p = lo * 435 -- the prime is 2^40 + 435
    hi = (hi * 435 + floor(p / 4294967296) + lo * 256) % 4294967296
    lo = p % 4294967296
  end
  return hi, lo
end

local function held(num, sid, by)
  local l = lease(num)
  if l == DEAD then return end
  local hi, lo = digest(sid)
  l[HELD] = l[HELD] + by
  l[HIGH] = bit.bxor(l[HIGH], hi) % 4294967296
  l[LOW] = bit.bxor(l[LOW], lo) % 4294967296
  changed[num] = true
end

local function take(num, x)
  x[NUM] = num
  held(num, x[SID], 1)
  set(indexed, num, w.name, true)
end

-- drop takes a session from its lease. It is not in the user's list, or has
-- the number of another lease by now.
local function drop(num, sid)
  held(num, sid, -1)
  for _, y in ipairs(w.rec[4]) do
    if y[NUM] == num and y[SID] ~= sid then return end
  end
  set(indexed, num, w.name, false)
end

local function metas(u)
  if not u.metas then
    u.metas = {}
    local raw = call('HGET', METAS, u.name)
    local list = raw and decode(raw) or {}
    for i = 1, #list, 2 do u.metas[list[i]] = list[i + 1] end
  end
  return u.metas
end

-- set_meta replaces a session's metadata and says whether it fitted.
local function set_meta(x, meta)
  if #meta == 0 and x[BYTES] == 0 then return true end
  local all = metas(w)
  if all[x[SID]] == meta then return true end
  local bytes = #meta - x[BYTES]
  for _, y in ipairs(w.rec[4]) do bytes = bytes + y[BYTES] end
  if #meta > 0 and bytes > MAXMETA then return false end
  all[x[SID]] = #meta > 0 and meta or nil
  x[BYTES] = #meta
  described[w.name] = true
  touch_all(x)
  return true
end

-- remove takes a session away.
local function remove(x, due, cause)
  local l = lease(x[NUM])
  local seen = now
  if not alive(x[NUM]) then seen = l[RENEWED] end
  w.rec[2] = math.max(w.rec[2], seen)
  w.keep = not w.anonymous and l[KEEP] > 0
  for i, y in ipairs(w.rec[4]) do
    if y == x then
      table.remove(w.rec[4], i)
      break
    end
  end
  if w.by then w.by[x[SID]] = nil end
  drop(x[NUM], x[SID])
  if x[BYTES] > 0 then
    metas(w)[x[SID]] = nil
    described[w.name] = true
  end
  for j = FIRST, #x do exit(x[j], due, cause) end
  exit('', due, cause)
end

-- reap ends the user's sessions of dead leases, and returns how many. It is
-- done before another session ends, so that its grace counts and not the dead
-- one's. Among the dead the one with the longest grace goes last, and counts.
local function reap()
  if w.reaped then return 0 end
  w.reaped = true -- no lease ends, and nothing comes under a dead one, in a call
  local dead
  for _, x in ipairs(w.rec[4]) do
    if not alive(x[NUM]) then
      dead = dead or {}
      dead[#dead + 1] = x
    end
  end
  if not dead then return 0 end
  table.sort(dead, function(a, b)
    local ga, gb = lease(a[NUM])[GRACE], lease(b[NUM])[GRACE]
    if ga ~= gb then return ga < gb end
    if a[NUM] ~= b[NUM] then return a[NUM] < b[NUM] end
    return a[SID] < b[SID]
  end)
  for _, x in ipairs(dead) do remove(x, lease(x[NUM])[GRACE], lease(x[NUM])[CAUSE]) end
  return #dead
end

-- end_graces ends all graces of a user, in a hold as soon as that is over.
local function end_graces()
  if holding > 0 then
    for _, e in ipairs(w.rec[3]) do
      if e[3] then
        local key = due_key(w.name, e[1])
        local due = dues[key] or tonumber(call('ZSCORE', DUES, key)) or now
        dues[key] = math.min(due, now)
      end
    end
    return
  end
  for i = #w.rec[3], 2, -1 do
    local e = w.rec[3][i]
    if e[3] then leave(e[1], e[3]) end
  end
  local e = w.m['']
  if e[3] then leave('', e[3]) end
end

-- finish logs what the operation touched. Most have one session, so that the
-- common case is worth being fast.
local function finish()
  local away = false
  for _, x in ipairs(w.rec[4]) do
    if alive(x[NUM]) then
      away = x[AWAY] == 1
      if not away then break end
    end
  end
  if away ~= w.away then
    w.away = away
    if not w.gone then
      for _, e in ipairs(w.rec[3]) do touch(e[1]) end
    end
  end
  if #touched > 0 then
    change(w)
    local fields = 0
    for _, x in ipairs(w.rec[4]) do
      fields = fields + #x
      if fields > LARGE then break end
    end
    local large = fields > LARGE
    local ev = {w.name, w.anonymous and 0 or w.rec[2], w.gone and '' or large and ASK or packed(w)}
    for _, k in ipairs(touched) do
      ev[#ev + 1] = k[1]
      ev[#ev + 1] = k[2]
      ev[#ev + 1] = k[3]
    end
    begun = begun or seq
    seq = seq + #touched
    events[#events + 1] = ev
    if not large then
      for _, x in ipairs(w.rec[4]) do named[x[NUM]] = true end
    end
  end
  if w.gone then users[w.name] = false end
  w = nil
end

-- post puts an order into a lease's mailbox: {number, kind, user, session,
-- code, text}.
local function post(num, kind, name, sid, code, text)
  local l = lease(num)
  l[MAILED] = l[MAILED] + 1
  changed[num] = true
  local box = BOX .. num
  if call('RPUSH', box, pack({l[MAILED], kind, name, sid, code, text})) > MAXMAIL then call('LPOP', box) end
  rings[num] = true
end

local function each(command, key, args)
  for i = 1, #args, 1000 do call(command, key, unpack(args, i, math.min(i + 999, #args))) end
end

-- put writes the members that are there and removes those that are not.
-- score: what comes before each.
local function put(add, del, key, of, score)
  local yes, no = {}, {}
  for k, v in pairs(of) do
    if v then
      if score then yes[#yes + 1] = score(v) end
      yes[#yes + 1] = k
    else
      no[#no + 1] = k
    end
  end
  if #yes > 0 then each(add, key, yes) end
  if #no > 0 then each(del, key, no) end
end

local function zero() return 0 end
local function same(v) return v end

-- flush writes everything, the log included: one entry {time, leases, events},
-- where leases are {number, id, name, renewed, alive} and events are {user,
-- last seen, packed user or "" or ASK, topic, kind, cause, topic, ...}.
local function flush()
  local yes, no = {}, {}
  for name in pairs(dirty) do
    local u = users[name]
    if u then
      yes[#yes + 1] = name
      yes[#yes + 1] = packed(u)
    else
      no[#no + 1] = name
    end
  end
  if #yes > 0 then each('HSET', USERS, yes) end
  if #no > 0 then each('HDEL', USERS, no) end
  for name in pairs(described) do
    local u, list = users[name], {}
    if u then
      for sid, meta in pairs(u.metas) do
        list[#list + 1] = sid
        list[#list + 1] = meta
      end
    end
    if #list > 0 then call('HSET', METAS, name, pack(list)) else call('HDEL', METAS, name) end
  end
  for topic, of in pairs(placed) do put('ZADD', 'ZREM', TOPIC .. topic, of, zero) end
  for topic, by in pairs(counted) do
    if by ~= 0 and call('HINCRBY', COUNTS, topic, by) == 0 then call('HDEL', COUNTS, topic) end
  end
  put('ZADD', 'ZREM', DUES, dues, same)
  for num, of in pairs(indexed) do put('SADD', 'SREM', INDEX .. num, of) end
  put('ZADD', 'ZREM', SEEN, remembered, same)
  save()
  if #events > 0 then
    local nodes = {}
    for num in pairs(named) do
      local l = lease(num)
      nodes[#nodes + 1] = {num, l[ID], l[NAME], l[RENEWED], l[END] > cut and 1 or 0}
    end
    local id = string.format('%.0f-0', seq)
    call('XADD', LOG, 'MINID', '~', string.format('%.0f', math.max(0, seq - ARGV[3])), id,
      'f', string.format('%.0f', begun), 'c', pack({now, nodes, events}))
    call('HSET', META, 'seq', string.format('%.0f', seq))
    call('SPUBLISH', tag .. 'log', id)
  end
  for num in pairs(rings) do call('SPUBLISH', tag .. 'bell:' .. num, '') end
end
