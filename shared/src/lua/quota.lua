-- quota: what each payer keeps in Redis in inputs and results above 8 KiB. Stands behind lib and clock. Smaller ones are not
-- counted. A payer is an owner, or the keyed hash of an address where nobody owns the job. A partition has
--   quota:charges  sorted set of scores 0: '<due> <job id> <bytes> <payer>'. `due`: when what is charged expires, Unix ms in 13
--                  digits, so that they are in the order of time; NOT_DUE until the job has ended
--   quota:bytes    hash: payer -> sum of its charges
--   quota:recount  hash, while they are recounted: payer -> sum of the charges that were looked at; '' -> the last of these,
--                  '<due> <job id>'
-- Their keys are made from that of a job, so that the calls of small jobs need not carry them.
local LARGE = 8192
local NOT_DUE = '9999999999999'

local function quota_key(job, name)
  return string.match(job, '^(.-}:)') .. 'quota:' .. name
end

-- What a job's field `charged` says: the bytes of its input if they count, else 0, and who pays.
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

-- Puts one charge for a job in the place of another; 0 bytes are none. A recount that is under way has to hear of it, if it
-- has come by that place.
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

-- When something that is kept from now on expires, as charges write it.
local function due_in(now, ttl_s)
  return string.format('%013d', now + 1000 * tonumber(ttl_s))
end
