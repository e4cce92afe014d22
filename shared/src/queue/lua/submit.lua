#!lua
-- submit: accepts jobs, each by itself and in order: pending, waiting in its priority's stream and listed in the log.
-- Repeating it with the same ids changes nothing. Without allow-oom: memory pressure refuses new work.
-- KEYS[1]  stream of priority high
-- KEYS[2]  stream of priority normal
-- KEYS[3]  stream of priority low
-- KEYS[4]  log stream
-- KEYS[5...]  per job: job hash, and the idempotency record, string, if its client sent a key
-- ARGV[1]  most outstanding jobs of the partition; 0 = no limit
-- ARGV[2]  most bytes that a payer may keep in the partition; 0 = no limit
-- ARGV[3...]  per job: job id | its 16 bytes | number of the stream that it waits in: 1 = high, 2 = normal, 3 = low |
--             longest wait in the queue, ms; 0 = no limit | owner; '' = nobody | fingerprint of the request, hex; '' without
--             an idempotency key | n, how many values follow | field, value pairs of the job hash: the input and what the
--             caller wants kept; the last one of a job that is large is `charged`, see quota
-- Returns  for each job "accepted" | {"duplicate", job_id, status} the key's job exists | {"conflict", job_id} the key
--          belongs to another request | {"full", outstanding} | {"over_quota", ms until there may be room} 0 = as soon as
--          one of the payer's jobs ends, -1 = not known
local limit, most_kept = tonumber(ARGV[1]), tonumber(ARGV[2])
local depth = limit > 0 and outstanding(KEYS[1], KEYS[2], KEYS[3]) or 0

-- What keeps a new job out, as a reply, or nil.
local function refusal(job, id, record, fingerprint, bytes, payer)
  local known = record and redis.call('GET', record)
  if known then
    local of, other = string.match(known, '^(%x+) (.+)$')
    local status = redis.call('HGET', string.sub(job, 1, -#id - 1) .. other, 'status')
    if status then
      return of == fingerprint and { 'duplicate', other, status } or { 'conflict', other }
    end
  end
  if limit > 0 and depth >= limit then
    return { 'full', depth }
  end
  return payer and over_quota(job, payer, bytes, most_kept)
end

local outcomes, key, argument = {}, 5, 3
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
      accept(job, id, KEYS[tonumber(ARGV[argument + 2])], KEYS[4], ARGV[argument + 1], ARGV[argument + 4], record,
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
