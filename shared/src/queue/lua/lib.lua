-- lib: shared by all scripts. It is put between the shebang line and the body of each script. Redis runs all of it at each call.
-- So a script gets only the shared parts that it needs, and those build no tables.
local GROUP = 'workers'
-- The consumer that owns the entries of released jobs and of jobs that wait for a retry. It runs nothing.
local WAITING = 'waiting'

-- A whole number as text. Lua itself would write large ones as 1.8e+12, and Redis's conversion takes longer.
local function int(number)
  return string.format('%d', number)
end
