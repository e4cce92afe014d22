-- lib: what all scripts share. Stands in front of each script's body, after its shebang line.
local GROUP = 'workers'
-- The consumer that owns entries which wait for a retry or were given back: nobody runs them.
local WAITING = 'waiting'
local STREAM_OF = { high = 1, normal = 2, low = 3 }
local TERMINAL = { completed = true, failed = true, cancelled = true }

-- Whether a caller may know of a job. `view`: '*' = it sees every job, '' = those of nobody, else those of this owner.
local function sees(view, owner)
  return view == '*' or view == (owner or '')
end

-- The server's clock, Unix ms: the only clock of the protocol. Call it once a script: Redis 7.0 does not freeze it.
local function server_now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Time since a job was accepted, ms. The clock may have gone back: after a failover it is another machine's.
local function age(created_at, now)
  return math.max(now - tonumber(created_at or now), 0)
end

-- A whole number as Redis stores it; Lua's own conversion turns large ones into 1.8e+12.
local function int(number)
  return string.format('%.0f', number)
end
