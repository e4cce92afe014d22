-- lib: what all scripts share. Stands in front of each script's body, after its shebang line. Redis runs all of it at each
-- call, so that a script is given only the shared parts that it needs, and they make no tables.
local GROUP = 'workers'
-- The consumer that owns entries which wait for a retry or were given back: nobody runs them.
local WAITING = 'waiting'

-- A whole number as Redis stores it; Lua's own conversion turns large ones into 1.8e+12, and Redis's takes longer.
local function int(number)
  return string.format('%d', number)
end
