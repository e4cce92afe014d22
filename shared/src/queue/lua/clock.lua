-- clock: the server's time. Needs lib.
-- The server's clock, Unix ms. The protocol uses no other clock. Call it once a script: Redis 7.0 does not freeze it.
local function server_now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Time since a job was accepted, ms. The clock may have gone back: after a failover it is that of another machine.
local function age(created_at, now)
  return math.max(now - tonumber(created_at or now), 0)
end
