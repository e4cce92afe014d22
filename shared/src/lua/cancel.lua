#!lua flags=allow-oom
-- cancel: ends a job that has not ended. A result in flight is fenced out. The input is kept for a requeue.
-- KEYS[1]  job hash
-- KEYS[2]  stream of priority high
-- KEYS[3]  stream of priority normal
-- KEYS[4]  stream of priority low
-- ARGV[1]  lifetime of a terminal job, s
-- Returns  {"cancelled"} also when it was cancelled before | {"ended", status} it completed or failed before | {"missing"}
local job = redis.call('HMGET', KEYS[1], 'status', 'entry', 'priority')
local status = job[1]
if not status then
  return { 'missing' }
end
if status == 'cancelled' then
  return { 'cancelled' }
end
if TERMINAL[status] then
  return { 'ended', status }
end

local stream = KEYS[1 + STREAM_OF[job[3] or 'normal']]
end_job({ key = KEYS[1], stream = stream, entry = job[2] }, server_now(), 'cancelled', ARGV[1], {}, true)
return { 'cancelled' }
