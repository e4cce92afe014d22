-- found: what scripts that are given a job's id need to know of the job that they find. Stands behind lib.
local STREAM_OF = { high = 1, normal = 2, low = 3 }
local TERMINAL = { completed = true, failed = true, cancelled = true }

-- Whether a caller may know of a job. `view`: '*' = it sees every job, '' = those of nobody, else those of this owner.
local function sees(view, owner)
  return view == '*' or view == (owner or '')
end
