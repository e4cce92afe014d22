-- found: shared by the scripts that look up a job by its id. Needs lib.
local TERMINAL = { completed = true, failed = true, cancelled = true }

local PRIORITIES = { high = true, low = true }

-- The stream of a job, from its fields `m` and `priority`. Jobs of priority normal lack the second.
local function stream_of(prefix, model, priority)
  return prefix .. (model or '') .. ':' .. (PRIORITIES[priority] and priority or 'normal')
end

-- Whether a caller may see a job. `view`: '*' = all jobs, '' = jobs without an owner, otherwise jobs of this owner.
local function sees(view, owner)
  return view == '*' or view == (owner or '')
end
