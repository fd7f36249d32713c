-- The store's clock, in microseconds. There is no other.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
