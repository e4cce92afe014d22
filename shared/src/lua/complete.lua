#!lua flags=allow-oom
-- complete: stores the results of attempts that hold their jobs and ends the jobs, each for itself.
-- KEYS[1]  stream of priority high
-- KEYS[2]  stream of priority normal
-- KEYS[3]  stream of priority low
-- KEYS[4...]  job hashes
-- ARGV[1]  lifetime of a terminal job, s
-- ARGV[2...]  per job: attempt token, stream number, result, JSON
-- Returns  a word for each job: "completed" also when this very attempt had completed it before | "lost" another attempt
--          owns the job or ended it | "cancelled" | "missing" no such job
local now, outcomes = server_now(), {}
for i = 4, #KEYS do
  local key, argument = KEYS[i], 3 * i - 10
  local token = ARGV[argument]
  local job = redis.call('HMGET', key, 'status', 'attempt', 'entry')
  local refused = fence(job[1], job[2], token)
  if job[1] == 'completed' and job[2] == token then
    table.insert(outcomes, 'completed')
  elseif refused then
    table.insert(outcomes, refused[1])
  else
    local record = { key = key, stream = KEYS[tonumber(ARGV[argument + 1])], entry = job[3] }
    end_job(record, now, 'completed', ARGV[1], { 'result', ARGV[argument + 2] }, false)
    table.insert(outcomes, 'completed')
  end
end
return outcomes
