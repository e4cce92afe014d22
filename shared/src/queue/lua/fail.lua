#!lua flags=allow-oom
-- fail: ends a job as failed, if this attempt holds it. Keeps the input and writes a dead letter.
-- KEYS[1]  job hash
-- KEYS[2]  stream of the job's entry
-- ARGV[1]  attempt token
-- ARGV[2]  job id
-- ARGV[3]  error code
-- ARGV[4]  error, a sentence for the client
-- ARGV[5]  lifetime of a terminal job, s
-- ARGV[6]  largest number of dead letters of a model
-- ARGV[7]  lifetime of its input, s
-- Returns  {"failed"} also if this attempt has failed the job before | {"lost"} | {"cancelled"} | {"missing"}
local job = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'entry', 'released', 'error_code',
  'at')
if job[1] == 'failed' and job[2] == ARGV[1] and job[5] == ARGV[3] then
  return { 'failed' }
end
local refused = fence(job[1], job[2], ARGV[1])
if refused then
  return refused
end

local attempts = tonumber(job[2]) - tonumber(job[4] or 0)
local record = { key = KEYS[1], id = ARGV[2], stream = KEYS[2], entry = job[3], created_at = job[6], attempts = attempts,
  ttl_s = ARGV[5], input_ttl_s = ARGV[7] }
fail_job(record, server_now(), ARGV[6], { code = ARGV[3], message = ARGV[4] })
return { 'failed' }
