-- hold: shared by the scripts of an attempt: fences it, and puts its job back. Needs lib.
-- The reply for an attempt that no longer holds the job, or nil.
local function fence(status, attempt, token)
  if not status then
    return { 'missing' }
  end
  if status == 'processing' and attempt == token then
    return nil
  end
  return { status == 'cancelled' and 'cancelled' or 'lost' }
end

-- Makes a consumer the owner of a pending entry that was idle for so many ms. Returns false if the entry is not pending, or if
-- there is no group.
local function claim(stream, consumer, entry, idle_ms)
  local claimed = redis.pcall('XCLAIM', stream, GROUP, consumer, 0, entry, 'IDLE', idle_ms, 'JUSTID')
  return not claimed.err and #claimed == 1
end

-- Puts a running job back. Its entry stays in the pending list, and XAUTOCLAIM returns it after `delay_ms`. If an operator
-- removed the entry from the list, a new one is written. Returns 1 in that case, else 0.
local function hand_back(job, now, delay_ms, lease_ms, fields)
  redis.call('HSET', job.key, 'status', 'pending', 'next_attempt_at', int(now + delay_ms), unpack(fields))
  redis.call('SPUBLISH', job.key, 'pending')
  local idle = int(math.max(lease_ms - delay_ms, 0))
  if claim(job.stream, WAITING, job.entry, idle) then
    return 0
  end
  redis.call('XDEL', job.stream, job.entry)
  redis.call('HSET', job.key, 'entry', redis.call('XADD', job.stream, '*', 'id', job.id))
  return 1
end
