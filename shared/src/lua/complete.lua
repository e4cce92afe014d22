#!lua flags=allow-oom
-- complete: stores the result of the attempt that holds the job and ends the job.
-- KEYS[1]  job hash
-- KEYS[2]  stream of the job's entry
-- ARGV[1]  attempt token
-- ARGV[2]  result, JSON
-- ARGV[3]  lifetime of a terminal job, s
-- Returns  {"completed"} also when this very attempt had completed it before | {"lost"} another attempt owns the job or
--          ended it | {"cancelled"} | {"missing"} no such job
local job = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'entry')
if job[1] == 'completed' and job[2] == ARGV[1] then
  return { 'completed' }
end
local refused = fence(job[1], job[2], ARGV[1])
if refused then
  return refused
end

end_job({ key = KEYS[1], stream = KEYS[2], entry = job[3] }, server_now(), 'completed', ARGV[3], { 'result', ARGV[2] }, false)
return { 'completed' }
