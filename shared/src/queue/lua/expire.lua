#!lua flags=allow-oom
-- expire: fails a job that has missed a deadline. Readers call it, because no worker may be running.
-- KEYS[1]  job hash
-- ARGV[1]  job id
-- ARGV[2]  lifetime of a terminal job, s
-- ARGV[3]  largest number of dead letters of a model
-- ARGV[4]  lifetime of its input, s
-- ARGV[5]  prefix of the streams' keys
-- Returns  {"expired", error code} | {"kept", status} no deadline is missed, or the job has ended | {"missing"}
local job = redis.call('HMGET', KEYS[1], 'status', 'entry', 'priority', 'attempt', 'released', 'waited_ms',
  'queue_deadline', 'run_deadline', 'at', 'm')
if not job[1] then
  return { 'missing' }
end
local now = server_now()
local why = missed_deadline(now, job[6], job[7], job[8])
if TERMINAL[job[1]] or not why then
  return { 'kept', job[1] }
end

local attempts = tonumber(job[4] or 0) - tonumber(job[5] or 0)
local stream = stream_of(ARGV[5], job[10], job[3])
local record = { key = KEYS[1], id = ARGV[1], stream = stream, entry = job[2], created_at = job[9], attempts = attempts,
  ttl_s = ARGV[2], input_ttl_s = ARGV[4] }
fail_job(record, now, ARGV[3], why)
return { 'expired', why.code }
