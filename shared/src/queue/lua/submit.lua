#!lua
-- submit: accepts jobs of a model, each by itself and in order: pending, in the stream of its priority and in the log. A repetition with the
-- same ids changes nothing. It has no allow-oom flag: under memory pressure Redis refuses new jobs.
-- KEYS[1]  the model's stream of priority high
-- KEYS[2]  of priority normal
-- KEYS[3]  of priority low
-- KEYS[4]  log stream
-- KEYS[5...]  per job: job hash, and the idempotency record, string, if the client sent a key
-- ARGV[1]  largest number of outstanding jobs of the partition; 0 = no limit
-- ARGV[2]  number of outstanding jobs of other models, as of the last count
-- ARGV[3]  largest number of outstanding jobs of the model; 0 = no limit
-- ARGV[4]  largest number of bytes that a payer may keep in the partition; 0 = no limit
-- ARGV[5]  model
-- ARGV[6...]  per job: job id | its 16 bytes | number of its stream: 1 = high, 2 = normal, 3 = low | longest wait in the
--             queue, ms; 0 = no limit | owner; '' = no owner | fingerprint of the request, hex; '' without an idempotency
--             key | n, the number of values that follow | name and value of each field of the job hash: the input and
--             fields that the caller wants to keep. The last field of a large job is `charged`, see quota
-- Returns  for each job "accepted" | {"duplicate", job_id, status} the key's job exists | {"conflict", job_id} the key
--          belongs to another request | {"full", outstanding} | {"model_full", outstanding} | {"over_quota", ms until there
--          may be room} 0 = as soon as one of the payer's jobs ends, -1 = unknown
local most, others, most_of_model, most_kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local depth = most + most_of_model > 0 and outstanding(KEYS[1], KEYS[2], KEYS[3]) or 0

-- The reply for a new job that is refused, or nil.
local function refusal(job, id, record, fingerprint, bytes, payer)
  local known = record and redis.call('GET', record)
  if known then
    local of, other = string.match(known, '^(%x+) (.+)$')
    local status = redis.call('HGET', string.sub(job, 1, -#id - 1) .. other, 'status')
    if status then
      return of == fingerprint and { 'duplicate', other, status } or { 'conflict', other }
    end
  end
  return no_room(depth, others, most, most_of_model) or payer and over_quota(job, payer, bytes, most_kept)
end

local outcomes, key, argument = {}, 5, 6
while KEYS[key] do
  local job, id, fingerprint = KEYS[key], ARGV[argument], ARGV[argument + 5]
  local record = fingerprint ~= '' and KEYS[key + 1]
  local first = argument + 7
  local next = first + ARGV[argument + 6]
  local refused
  if redis.call('EXISTS', job) == 0 then
    local bytes, payer
    if ARGV[next - 2] == 'charged' then
      bytes, payer = charged_of(ARGV[next - 1])
    end
    refused = refusal(job, id, record, fingerprint, bytes, payer)
    if not refused then
      if payer then
        recharge(job, payer, 0, '', bytes, NOT_DUE)
      end
      accept(job, id, ARGV[5], KEYS[tonumber(ARGV[argument + 2])], KEYS[4], ARGV[argument + 1], ARGV[argument + 4], record,
        tonumber(ARGV[argument + 3]), unpack(ARGV, first, next - 1))
      depth = depth + 1
      if record then
        redis.call('SET', record, fingerprint .. ' ' .. id)
      end
    end
  end
  table.insert(outcomes, refused or 'accepted')
  key, argument = key + (record and 2 or 1), next
end
return outcomes
