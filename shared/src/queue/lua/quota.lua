-- quota: counts the bytes that each payer keeps in Redis in inputs and results above 8 KiB; smaller ones are free. Needs lib and
-- clock. A payer is an owner, or the keyed hash of an address if the job has no owner. Keys of a partition:
--   quota:charges  sorted set of scores 0: '<due> <job id> <bytes> <payer>'. `due`: when the charged bytes expire, Unix ms in
--                  13 digits, which sorts charges by time; NOT_DUE until the job has ended
--   quota:bytes    hash: payer -> sum of its charges
--   quota:recount  hash, during a recount: payer -> sum of the charges counted so far; '' -> the last charge counted,
--                  '<due> <job id>'
-- The keys are derived from the job's key: calls for small jobs do not carry them.
local LARGE = 8192
local NOT_DUE = '9999999999999'

local function quota_key(job, name)
  return string.match(job, '^(.-}:)') .. 'quota:' .. name
end

-- Reads a job's field `charged`: the charged bytes of its input (0 if it is small) and the payer.
local function charged_of(field)
  local bytes, payer = string.match(field, '^(%d+) (.+)$')
  return tonumber(bytes), payer
end

-- Adds to a payer's sum.
local function add(sums, payer, bytes)
  local sum = tonumber(redis.call('HGET', sums, payer) or 0) + bytes
  if sum > 0 then
    redis.call('HSET', sums, payer, int(sum))
  else
    redis.call('HDEL', sums, payer)
  end
end

-- Replaces a job's charge; 0 bytes mean no charge. A recount in progress is corrected if it has already passed the charge.
local function recharge(job, payer, old_bytes, old_due, bytes, due)
  local charges, recount, id = quota_key(job, 'charges'), quota_key(job, 'recount'), string.match(job, '[^:]+$')
  local seen = redis.call('HGET', recount, '')
  local change, recounted = 0, 0
  if old_bytes > 0 and redis.call('ZREM', charges, old_due .. ' ' .. id .. ' ' .. int(old_bytes) .. ' ' .. payer) == 1 then
    change = -old_bytes
    recounted = seen and old_due .. ' ' .. id <= seen and -old_bytes or 0
  end
  if bytes > 0 and redis.call('ZADD', charges, 0, due .. ' ' .. id .. ' ' .. int(bytes) .. ' ' .. payer) == 1 then
    change = change + bytes
    recounted = recounted + (seen and due .. ' ' .. id <= seen and bytes or 0)
  end
  if change ~= 0 then
    add(quota_key(job, 'bytes'), payer, change)
  end
  if recounted ~= 0 then
    add(recount, payer, recounted)
  end
end

-- The `due` of bytes that expire `ttl_s` seconds from now.
local function due_in(now, ttl_s)
  return string.format('%013d', now + 1000 * tonumber(ttl_s))
end
