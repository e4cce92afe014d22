#!lua flags=allow-oom
-- retry: puts back a job whose attempt failed. It is due after a delay. The attempt counts.
-- KEYS[1]  job hash
-- KEYS[2]  stream of the job's entry
-- ARGV[1]  attempt token
-- ARGV[2]  job id
-- ARGV[3]  delay, ms; at most the lease
-- ARGV[4]  lease, ms
-- Returns  {"retried", repaired} also if this attempt has put the job back before; repaired = 1 if a new entry was written
--          | {"lost"} | {"cancelled"} | {"missing"}
local job = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'entry')
if job[1] == 'pending' and job[2] == ARGV[1] then
  return { 'retried', 0 }
end
local refused = fence(job[1], job[2], ARGV[1])
if refused then
  return refused
end

local lease_ms = tonumber(ARGV[4])
local record = { key = KEYS[1], id = ARGV[2], stream = KEYS[2], entry = job[3] }
return { 'retried', hand_back(record, server_now(), math.min(tonumber(ARGV[3]), lease_ms), lease_ms, {}) }
