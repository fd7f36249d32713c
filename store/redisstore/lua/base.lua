-- What every script begins with: the partition as it is now, and its leases.
--
-- KEYS[1]  {ns:p}:m, the partition's hash. Every other key has its tag.
-- KEYS[2]  {ns:p}:none, which never exists. While a Cluster moves the slot from
--          one master to another, Redis refuses a call that names a key it
--          has and one it has not (TRYAGAIN). Else a script would find half
--          of the partition, or fail in the middle.
-- ARGV[1]  "<partitions> <lease in µs>". Others than the stored are refused.
-- ARGV[2]  the generation to begin with, should one begin
-- ARGV[3]  how many changes the log keeps
--
-- Errors: PRESENCE_CONF, PRESENCE_LEASE, PRESENCE_LATE.

local call, floor, pack, decode = redis.call, math.floor, cmsgpack.pack, cmsgpack.unpack
local tag = string.sub(KEYS[1], 1, -2)
local META = KEYS[1]
local LEASES, USERS, METAS, COUNTS = tag .. 'n', tag .. 'u', tag .. 'x', tag .. 'k'
local DUES, SEEN, REPLACED, LOG = tag .. 'd', tag .. 'l', tag .. 'r', tag .. 'log'
local TOPIC, INDEX, BOX = tag .. 't:', tag .. 'i:', tag .. 'b:'
local ttl = tonumber(string.match(ARGV[1], '%d+$'))
local MAXSEEN, MAXMAIL, MAXMETA = 1000000, 10000, 65536

local m = call('HMGET', META, 'conf', 'gen', 'replid', 'heard', 'hold', 'running', 'seq', 'number', 'shift', 'forgot', 'quiet')
if m[1] and m[1] ~= ARGV[1] then return redis.error_reply('PRESENCE_CONF ' .. m[1]) end
local gen = m[2]
local heard, hold, running = tonumber(m[4]) or 0, tonumber(m[5]) or 0, tonumber(m[6]) or 0
local seq, number = tonumber(m[7]) or 0, tonumber(m[8]) or 0
local shift, forgot, quiet = tonumber(m[9]) or 0, m[10] == '1', tonumber(m[11]) or 0
local master = string.match(call('INFO', 'replication'), 'master_replid:(%x+)') or ''

-- A clock that goes back, say with another master, would raise the dead. Time
-- goes on from where it was.
local now = clock() + shift
local back = heard - now
if back > 0 then now = heard end

local cut      -- leases that end after it are alive
local holding  -- when the hold ends; 0: there is none

-- A lease is an array of these, in LEASES under its number.
local ID, NAME, END, RENEWED, GRACE, CAUSE = 1, 2, 3, 4, 5, 6
local LEAVE, KEEP, HELD, HIGH, LOW, ASSERTED = 7, 8, 9, 10, 11, 12
local MAILED, NONCE, CALLED = 13, 14, 15
local DEAD = {'', '', 0, 0, 0, 'node-lost', 0, 0, 0, 0, 0, 0, 0, '', 0}

local leases, changed, complete = {}, {}, false

local function lease(num)
  local l = leases[num]
  if not l then
    local raw = not complete and call('HGET', LEASES, num)
    l = raw and decode(raw) or DEAD
    leases[num] = l
  end
  return l
end

-- all reads every lease and returns their numbers, oldest first.
local function all()
  if not complete then
    local raw = call('HGETALL', LEASES)
    for i = 1, #raw, 2 do
      local num = tonumber(raw[i])
      leases[num] = leases[num] or decode(raw[i + 1])
    end
    complete = true
  end
  local nums = {}
  for num, l in pairs(leases) do
    if l ~= DEAD then nums[#nums + 1] = num end
  end
  table.sort(nums)
  return nums
end

local function alive(num) return lease(num)[END] > cut end

local function save()
  for num in pairs(changed) do call('HSET', LEASES, num, pack(leases[num])) end
  changed = {}
end

-- unheard says whether the store may have been out of reach. Silence after
-- the last lease ended means nothing.
local function unheard() return now - heard > ttl / 2 and running > heard end

-- look is the view of a reader, who may be the first one back and must see
-- what the first contact would bring about.
local function look()
  cut, holding = now, 0
  if not gen then
    holding = now + ttl
  elseif m[3] ~= master or unheard() then
    cut, holding = heard, now + ttl
  elseif hold > now then
    holding = hold
  end
end

-- hold_until makes the leases that ran at a given time good for a hold.
local function hold_until(at, ran)
  for _, num in ipairs(all()) do
    local l = leases[num]
    if l[END] > ran and l[END] < at then
      l[END] = at
      changed[num] = true
    end
  end
  hold, running = at, math.max(running, at)
  call('HSET', META, 'hold', hold, 'running', running)
end

-- contact is the view of a node. It notes that one was heard, and begins a
-- hold where that is due.
local function contact()
  if not gen then
    -- Nobody knows what was here before.
    gen, running, seq, number, shift, quiet = ARGV[2], 0, 0, 0, 0, 0
    hold, forgot = now + ttl, true
    call('DEL', META)
    call('UNLINK', LEASES, USERS, METAS, COUNTS, DUES, SEEN, REPLACED, LOG)
    call('HSET', META, 'conf', ARGV[1], 'gen', gen, 'replid', master, 'hold', hold, 'forgot', 1)
    complete = true
  elseif m[3] ~= master then
    -- Another master, or a restart: the end of its memory may be lost, leases
    -- and log included.
    gen, forgot = ARGV[2], true
    hold_until(now + ttl, heard)
    for _, num in ipairs(all()) do leases[num][ASSERTED] = 0; changed[num] = true end
    call('HSET', META, 'gen', gen, 'replid', master, 'forgot', 1)
  elseif unheard() then
    if forgot and hold <= now then
      forgot = false
      call('HSET', META, 'forgot', 0)
    end
    hold_until(now + ttl, heard)
    for _, num in ipairs(all()) do leases[num][ASSERTED] = 0; changed[num] = true end
  end
  if back > 0 then
    shift = shift + back
    call('HSET', META, 'shift', shift)
  end
  call('HSET', META, 'heard', now)
  heard, cut, holding = now, now, 0
  if hold > now then holding = hold end
  save()
end

-- caller returns the lease of a call, if it is good.
local function caller(num, nonce)
  local l = lease(tonumber(num))
  if l[NONCE] == nonce and alive(tonumber(num)) then return l end
end

local LOST = 'PRESENCE_LEASE the lease has ended'

-- extend makes a lease good for a TTL from now.
local function extend(num, l)
  l[END], l[RENEWED], l[GRACE] = now + ttl, now, now + l[LEAVE]
  changed[num] = true
  if l[END] > running then
    running = l[END]
    call('HSET', META, 'running', running)
  end
end

-- bury forgets dead leases with nothing left under them.
local function bury()
  for _, num in ipairs(all()) do
    if not alive(num) and leases[num][HELD] <= 0 then
      call('HDEL', LEASES, num)
      call('UNLINK', INDEX .. num, BOX .. num)
      leases[num], changed[num] = nil, nil
    end
  end
end

-- agenda says whether a sweep would find something, and else how long until it
-- may; 0: nothing is in sight.
local function agenda(mine, keep)
  if holding > 0 then return 0, holding - now end
  local at
  local due = call('ZRANGE', DUES, 0, 0, 'WITHSCORES')
  if due[2] then at = tonumber(due[2]) end
  for _, num in ipairs(all()) do
    local l = leases[num]
    if num ~= mine and l[HELD] > 0 and (not at or l[END] < at) then at = l[END] end
  end
  if not (at and at <= now) then
    local seen = keep > 0 and call('ZRANGE', SEEN, 0, 0, 'WITHSCORES')
    if seen and seen[2] and seen[2] + keep <= now or call('ZCARD', SEEN) > MAXSEEN then at = now end
  end
  if not at then return 0, 0 end
  at = math.max(at, quiet)
  if at <= now then return 1, 0 end
  return 0, at - now
end
