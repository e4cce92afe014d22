-- lib: what the transitions share. Stands in front of every script's body, after its shebang line.
local GROUP = 'workers'
-- The consumer that owns entries which wait for a retry or were given back: nobody runs them.
local WAITING = 'waiting'
local STREAM_OF = { high = 1, normal = 2, low = 3 }
-- Fields that mean nothing once a job has ended.
local TRANSIENT = { 'entry', 'next_attempt_at', 'queue_deadline', 'run_deadline', 'timeout_ms', 'request_id', 'traceparent' }
local TERMINAL = { completed = true, failed = true, cancelled = true }

-- The server's clock, Unix ms: the only clock of the protocol. Call it once a script: Redis 7.0 does not freeze it.
local function server_now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A whole number as Redis stores it; Lua's own conversion turns large ones into 1.8e+12.
local function int(number)
  return string.format('%.0f', number)
end

-- Outstanding jobs of a partition: finished entries are deleted, so the lengths are exact.
local function outstanding(streams)
  local sum = 0
  for _, stream in ipairs(streams) do
    sum = sum + redis.call('XLEN', stream)
  end
  return sum
end

-- Writes a new pending job into its stream, its hash and the log. `fields`: flat list of further fields.
local function accept(job, id, stream, log, now, fields)
  local entry = redis.call('XADD', stream, '*', 'id', id)
  redis.call('HSET', job, 'status', 'pending', 'created_at', int(now), 'entry', entry, unpack(fields))
  redis.call('XADD', log, '*', 'id', id)
end

-- The only way into a terminal state. `job`: {key, stream, entry}; `fields`: flat list of what the end adds;
-- `keep_input`: whether the job can be submitted again from its record.
local function end_job(job, now, status, ttl_s, fields, keep_input)
  redis.call('HDEL', job.key, unpack(TRANSIENT))
  if not keep_input then
    redis.call('HDEL', job.key, 'input')
  end
  redis.call('HSET', job.key, 'status', status, 'finished_at', int(now), unpack(fields))
  redis.call('XACK', job.stream, GROUP, job.entry)
  redis.call('XDEL', job.stream, job.entry)
  redis.call('EXPIRE', job.key, ttl_s)
  redis.call('PUBLISH', job.key, status)
end

-- end_job for a failure, which also leaves a dead letter. `dead`: {key, max}; `why`: {code, message}.
local function fail_job(job, now, ttl_s, dead, why)
  end_job(job, now, 'failed', ttl_s, { 'error', why.message, 'error_code', why.code }, true)
  redis.call('XADD', dead.key, 'MAXLEN', '~', dead.max, '*', 'id', job.id, 'error_code', why.code, 'attempts', job.attempts)
end

-- Which deadline a job has missed, as a reason to fail it, or nil.
local function missed_deadline(now, started_at, queue_deadline, run_deadline)
  if queue_deadline and not started_at and now > tonumber(queue_deadline) then
    return { code = 'queue_timeout', message = 'The job waited longer than max_queue_seconds' }
  end
  if run_deadline and now > tonumber(run_deadline) then
    return { code = 'timeout', message = 'The job ran longer than timeout_seconds' }
  end
end

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
  local idle = int(math.max(lease_ms - delay_ms, 0))
  if claim(job.stream, WAITING, job.entry, idle) then
    return 0
  end
  redis.call('XDEL', job.stream, job.entry)
  redis.call('HSET', job.key, 'entry', redis.call('XADD', job.stream, '*', 'id', job.id))
  return 1
end
