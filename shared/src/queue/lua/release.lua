#!lua flags=allow-oom
-- release: puts a job back without using an attempt (model server down, shutdown). It is claimed before new jobs.
-- KEYS[1]  job hash
-- KEYS[2]  stream of the job's entry
-- ARGV[1]  attempt token
-- ARGV[2]  job id
-- ARGV[3]  lease, ms
-- ARGV[4]  1 = its model call broke off, which `broken` counts; 0 = it did not
-- Returns  {"released", repaired} also if this attempt has released the job before; repaired = 1 if a new entry was written
--          | {"lost"} | {"cancelled"} | {"missing"}
local job = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'entry', 'released', 'broken')
if job[1] == 'pending' and job[2] == ARGV[1] then
  return { 'released', 0 }
end
local refused = fence(job[1], job[2], ARGV[1])
if refused then
  return refused
end

local record = { key = KEYS[1], id = ARGV[2], stream = KEYS[2], entry = job[3] }
local fields = { 'released', tonumber(job[4] or 0) + 1 }
if ARGV[4] == '1' then
  fields[3], fields[4] = 'broken', tonumber(job[5] or 0) + 1
end
return { 'released', hand_back(record, server_now(), 0, tonumber(ARGV[3]), fields) }
