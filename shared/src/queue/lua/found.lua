-- found: shared by the scripts that look up a job by its id. Needs lib.
local STREAM_OF = { high = 1, normal = 2, low = 3 }
local TERMINAL = { completed = true, failed = true, cancelled = true }

-- Whether a caller may see a job. `view`: '*' = all jobs, '' = jobs without an owner, otherwise jobs of this owner.
local function sees(view, owner)
  return view == '*' or view == (owner or '')
end
