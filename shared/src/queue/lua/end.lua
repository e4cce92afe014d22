-- end: shared by the scripts that end jobs. Needs lib, clock and quota.
-- Puts a job into a terminal status; nothing else does. `...`: name and value of each field that the end adds. The caller removes
-- the job's entry.
local function close_job(key, created_at, now, status, ttl_s, ...)
  redis.call('HDEL', key, 'input', 'entry', 'next_attempt_at', 'queue_deadline', 'run_deadline', 'timeout_ms', 'request_id',
    'traceparent')
  redis.call('HSET', key, 'status', status, 'took_ms', int(age(created_at, now)), ...)
  redis.call('EXPIRE', key, ttl_s)
  redis.call('SPUBLISH', key, status)
end

local function remove_entries(stream, entries)
  redis.call('XACK', stream, GROUP, unpack(entries))
  redis.call('XDEL', stream, unpack(entries))
end

-- Key of the input of a failed or cancelled job. It is a key of its own because it expires before the job, and the hash of an
-- ended job must not change.
local function input_key(key)
  return (string.gsub(key, '}:job:', '}:input:', 1))
end

-- Ends a job without a result. Its input is kept for a requeue, and stays charged as long. `job`: {key, created_at, stream, entry,
-- ttl_s, input_ttl_s}. A damaged record may lack the input or the entry, and nothing may fail after the first write.
local function end_job(job, now, status, ...)
  local kept = redis.call('HMGET', job.key, 'input', 'charged')
  local input, charged = kept[1], kept[2]
  if charged then
    local bytes, payer = charged_of(charged)
    recharge(job.key, payer, bytes, NOT_DUE, input and bytes or 0, due_in(now, job.input_ttl_s))
  end
  if input then
    redis.call('SET', input_key(job.key), input, 'EX', job.input_ttl_s)
  end
  close_job(job.key, job.created_at, now, status, job.ttl_s, ...)
  if job.entry then
    remove_entries(job.stream, { job.entry })
  end
end

-- A key of the model that a stream belongs to: '{queue:p}:<kind>:<model>'. It is derived because few calls need it.
local function model_key(stream, kind)
  local partition, model = string.match(stream, '^(.-}:)stream:(.*):%a+$')
  return partition .. kind .. ':' .. model
end

-- Ends a job as failed and writes a dead letter of its model. `job`: as for end_job, and {id, attempts}; `max_dead`: largest number
-- of dead letters of a model; `why`: {code, message}.
local function fail_job(job, now, max_dead, why)
  end_job(job, now, 'failed', 'error', why.message, 'error_code', why.code)
  redis.call('XADD', model_key(job.stream, 'dead'), 'MAXLEN', '~', max_dead, '*', 'id', job.id, 'error_code', why.code, 'attempts', job.attempts)
end

-- The reason to fail a job that has missed a deadline, or nil.
local function missed_deadline(now, waited_ms, queue_deadline, run_deadline)
  if queue_deadline and not waited_ms and now > tonumber(queue_deadline) then
    return { code = 'queue_timeout', message = 'The job waited longer than max_queue_seconds' }
  end
  if run_deadline and now > tonumber(run_deadline) then
    return { code = 'timeout', message = 'The job ran longer than its timeout' }
  end
end
