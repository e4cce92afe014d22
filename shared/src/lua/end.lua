-- end: how a job ends: what the scripts that make a job terminal share. Stands behind lib.
-- Drops the fields that mean nothing once a job has ended, and those that are named.
local function drop_fields(key, ...)
  redis.call('HDEL', key, 'entry', 'next_attempt_at', 'queue_deadline', 'run_deadline', 'timeout_ms', 'request_id',
    'traceparent', ...)
end

-- The only way into a terminal state. `keep_input`: whether the job can be submitted again from its record; `...`: the
-- fields that the end adds, flat. Its entry is to be removed by the same script.
local function close_job(key, created_at, now, status, ttl_s, keep_input, ...)
  if keep_input then
    drop_fields(key)
  else
    drop_fields(key, 'input')
  end
  redis.call('HSET', key, 'status', status, 'took_ms', int(age(created_at, now)), ...)
  redis.call('EXPIRE', key, ttl_s)
  redis.call('PUBLISH', key, status)
end

local function remove_entries(stream, entries)
  redis.call('XACK', stream, GROUP, unpack(entries))
  redis.call('XDEL', stream, unpack(entries))
end

-- close_job for one job with its entry, which keeps its input. `job`: {key, created_at, stream, entry}; a damaged record may
-- lack the entry, and nothing may fail after the first write.
local function end_job(job, now, status, ttl_s, ...)
  close_job(job.key, job.created_at, now, status, ttl_s, true, ...)
  if job.entry then
    remove_entries(job.stream, { job.entry })
  end
end

-- end_job for a failure, which also leaves a dead letter. `job`: id and attempts beside that; `dead`: {key, max}; `why`: {code, message}.
local function fail_job(job, now, ttl_s, dead, why)
  end_job(job, now, 'failed', ttl_s, 'error', why.message, 'error_code', why.code)
  redis.call('XADD', dead.key, 'MAXLEN', '~', dead.max, '*', 'id', job.id, 'error_code', why.code, 'attempts', job.attempts)
end

-- Which deadline a job has missed, as a reason to fail it, or nil.
local function missed_deadline(now, waited_ms, queue_deadline, run_deadline)
  if queue_deadline and not waited_ms and now > tonumber(queue_deadline) then
    return { code = 'queue_timeout', message = 'The job waited longer than max_queue_seconds' }
  end
  if run_deadline and now > tonumber(run_deadline) then
    return { code = 'timeout', message = 'The job ran longer than timeout_seconds' }
  end
end
