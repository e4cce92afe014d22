-- hold: who holds a running job, and how it is given back. Stands behind lib.
-- Why an attempt may not write to a job, as a reply, or nil when it still holds the job.
local function fence(status, attempt, token)
  if not status then
    return { 'missing' }
  end
  if status == 'processing' and attempt == token then
    return nil
  end
  return { status == 'cancelled' and 'cancelled' or 'lost' }
end

-- Makes a consumer the owner of a pending entry, idle for so many ms. Whether the entry is pending; without its group it
-- is not, and the script must go on.
local function claim(stream, consumer, entry, idle_ms)
  local claimed = redis.pcall('XCLAIM', stream, GROUP, consumer, 0, entry, 'IDLE', idle_ms, 'JUSTID')
  return not claimed.err and #claimed == 1
end

-- Gives a running job back: its entry stays in the pending list and XAUTOCLAIM hands it out after `delay_ms`.
-- An entry that an operator removed from the list is written anew. Returns 1 if that was needed, else 0.
local function hand_back(job, now, delay_ms, lease_ms, fields)
  redis.call('HSET', job.key, 'status', 'pending', 'next_attempt_at', int(now + delay_ms), unpack(fields))
  redis.call('PUBLISH', job.key, 'pending')
  local idle = int(math.max(lease_ms - delay_ms, 0))
  if claim(job.stream, WAITING, job.entry, idle) then
    return 0
  end
  redis.call('XDEL', job.stream, job.entry)
  redis.call('HSET', job.key, 'entry', redis.call('XADD', job.stream, '*', 'id', job.id))
  return 1
end
