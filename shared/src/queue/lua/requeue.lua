#!lua
-- requeue: submits the input of a failed or cancelled job again, as a new job of the same owner. The old job does not change.
-- KEYS[1]  new job hash
-- KEYS[2]  the model's stream of priority high
-- KEYS[3]  of priority normal
-- KEYS[4]  of priority low
-- KEYS[5]  log stream
-- KEYS[6]  old job hash
-- KEYS[7]  the old job's input, string
-- ARGV[1]  new job id
-- ARGV[2]  old job id
-- ARGV[3]  largest number of outstanding jobs of the partition; 0 = no limit
-- ARGV[4]  new job id, its 16 bytes
-- ARGV[5]  which jobs the caller sees: those of this owner; '' = those without an owner; '*' = all
-- ARGV[6]  largest number of bytes that a payer may keep in the partition; 0 = no limit
-- ARGV[7]  payer if the old job has no owner; '' = nothing is charged
-- ARGV[8]  model of both jobs
-- ARGV[9]  number of outstanding jobs of other models, as of the last count
-- ARGV[10]  largest number of outstanding jobs of the model; 0 = no limit
-- ARGV[11...]  name and value of each further field of the new job hash
-- Returns  {"accepted"} | {"unfinished", status} the old job has not failed and is not cancelled | {"expired", status} its input
--          has expired | {"missing"} no such job, or the caller does not see it | {"full", outstanding}
--          | {"model_full", outstanding} | {"over_quota", ms} as submit
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 'accepted' }
end
local old = redis.call('HMGET', KEYS[6], 'status', 'priority', 'input', 'owner', 'charged')
if not old[1] or not sees(ARGV[5], old[4]) then
  return { 'missing' }
end
if old[1] ~= 'failed' and old[1] ~= 'cancelled' then
  return { 'unfinished', old[1] }
end
-- Earlier releases kept the input in the hash.
local input = old[3] or redis.call('GET', KEYS[7])
if not input then
  return { 'expired', old[1] }
end
local depth = outstanding(KEYS[2], KEYS[3], KEYS[4])
local full = no_room(depth, tonumber(ARGV[9]), tonumber(ARGV[3]), tonumber(ARGV[10]))
if full then
  return full
end
local fields = { 'input', input, 'retry_of', ARGV[2], unpack(ARGV, 11) }
if old[2] then
  table.insert(fields, 'priority')
  table.insert(fields, old[2])
end
if ARGV[7] ~= '' and (#input > LARGE or old[5]) then
  local bytes, payer = #input > LARGE and #input or 0, old[4] and 'o:' .. old[4] or ARGV[7]
  local refused = over_quota(KEYS[1], payer, bytes, tonumber(ARGV[6]))
  if refused then
    return refused
  end
  recharge(KEYS[1], payer, 0, '', bytes, NOT_DUE)
  table.insert(fields, 'charged')
  table.insert(fields, int(bytes) .. ' ' .. payer)
end

local stream = old[2] == 'high' and KEYS[2] or old[2] == 'low' and KEYS[4] or KEYS[3]
accept(KEYS[1], ARGV[1], ARGV[8], stream, KEYS[5], ARGV[4], old[4] or '', nil, 0, unpack(fields))
return { 'accepted' }
