#!lua flags=allow-oom
-- cancel: ends a job as cancelled. A later result is fenced. The input is kept for a requeue.
-- KEYS[1]  job hash
-- ARGV[1]  lifetime of a terminal job, s
-- ARGV[2]  which jobs the caller sees: those of this owner; '' = those without an owner; '*' = all
-- ARGV[3]  lifetime of its input, s
-- ARGV[4]  prefix of the streams' keys
-- Returns  {"cancelled", model} also if it was cancelled before | {"ended", status} it completed or failed before | {"missing"} no
--          such job, or the caller does not see it
local job = redis.call('HMGET', KEYS[1], 'status', 'entry', 'priority', 'owner', 'at', 'm')
local status = job[1]
if not status or not sees(ARGV[2], job[4]) then
  return { 'missing' }
end
if status == 'cancelled' then
  return { 'cancelled', job[6] or '' }
end
if TERMINAL[status] then
  return { 'ended', status }
end

local stream = stream_of(ARGV[4], job[6], job[3])
local record =
  { key = KEYS[1], stream = stream, entry = job[2], created_at = job[5], ttl_s = ARGV[1], input_ttl_s = ARGV[3] }
end_job(record, server_now(), 'cancelled')
return { 'cancelled', job[6] or '' }
