#!lua
-- submit: accepts a job: pending, waiting in its priority's stream and listed in the log.
-- Repeating it with the same id changes nothing. Without allow-oom: memory pressure refuses new work.
-- KEYS[1]  job hash
-- KEYS[2]  stream of priority high
-- KEYS[3]  stream of priority normal
-- KEYS[4]  stream of priority low
-- KEYS[5]  log stream
-- KEYS[6]  idempotency record, string; absent when the client sent no key
-- ARGV[1]  job id
-- ARGV[2]  number of the stream that the job waits in: 1 = high | 2 = normal | 3 = low
-- ARGV[3]  most outstanding jobs of the partition; 0 = no limit
-- ARGV[4]  longest wait in the queue, ms; 0 = no limit
-- ARGV[5]  fingerprint of the request, hex; '' without an idempotency key
-- ARGV[6]  lifetime of the idempotency record, s
-- ARGV[7]  job id, its 16 bytes
-- ARGV[8]  owner; '' = nobody
-- ARGV[9...]  field, value pairs of the job hash: the input and what the caller wants kept
-- Returns  {"accepted"} | {"duplicate", job_id, status} the key's job exists | {"conflict", job_id} the key belongs to
--          another request | {"full", outstanding}
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 'accepted' }
end
local record = KEYS[6] and redis.call('GET', KEYS[6])
if record then
  local fingerprint, id = string.match(record, '^(%x+) (.+)$')
  local status = redis.call('HGET', string.sub(KEYS[1], 1, -#ARGV[1] - 1) .. id, 'status')
  if status then
    return fingerprint == ARGV[5] and { 'duplicate', id, status } or { 'conflict', id }
  end
end
local limit = tonumber(ARGV[3])
if limit > 0 then
  local depth = outstanding(KEYS[2], KEYS[3], KEYS[4])
  if depth >= limit then
    return { 'full', depth }
  end
end

accept(KEYS[1], ARGV[1], KEYS[1 + ARGV[2]], KEYS[5], ARGV[7], ARGV[8], tonumber(ARGV[4]), unpack(ARGV, 9))
if KEYS[6] then
  redis.call('SET', KEYS[6], ARGV[5] .. ' ' .. ARGV[1], 'EX', ARGV[6])
end
return { 'accepted' }
