-- grant: shared by `take` and `start`: turns delivered entries into claims. Needs lib, clock, quota and end.
-- `grants`: {streams, prefix, now, max_lost, max_dead, ttl_s, input_ttl_s, put_off_idle_ms: idle time of a job that must wait,
-- max_bytes, lease_ms, count = 0, jobs = {}, ended = {}, stale = 0, put_off = 0, reclaimed = {}, bytes = 0}.
-- `jobs`: the values of all claimed jobs in one list, since a list in a list costs Redis a buffer of its own.
local function grant(grants, number, entry, id)
  local stream, key = grants.streams[number], grants.prefix .. id
  local job = redis.call('HMGET', key, 'status', 'entry', 'attempt', 'at', 'queue_deadline', 'timeout_ms',
    'request_id', 'traceparent', 'input')
  -- Most jobs are new, and these fields are missing.
  local status, attempt, created_at = job[1], tonumber(job[3] or 0), job[4]
  local released, lost, broken, waited_ms, deadline = 0, 0, 0, nil, nil
  if job[3] then
    local ran = redis.call('HMGET', key, 'released', 'lost', 'waited_ms', 'run_deadline', 'broken')
    released, lost, waited_ms, deadline = tonumber(ran[1] or 0), tonumber(ran[2] or 0), ran[3], ran[4]
    broken = tonumber(ran[5] or 0)
  end
  if job[2] ~= entry or (status ~= 'pending' and status ~= 'processing') then
    -- The job ended, was deleted, or has another entry now.
    redis.call('XACK', stream, GROUP, entry)
    redis.call('XDEL', stream, entry)
    grants.stale = grants.stale + 1
    return
  end
  local why = missed_deadline(grants.now, waited_ms, job[5], deadline)
  if status == 'processing' then
    -- A job that still runs is delivered again only when its lease has lapsed: its worker is lost.
    lost = lost + 1
    table.insert(grants.reclaimed, number)
    redis.call('HSET', key, 'lost', lost)
    if not why and lost >= grants.max_lost then
      why = { code = 'worker_lost', message = 'The worker was lost ' .. lost .. ' times while running the job' }
    end
  end
  if why then
    local record = { key = key, id = id, stream = stream, entry = entry, created_at = created_at,
      attempts = attempt - released, ttl_s = grants.ttl_s, input_ttl_s = grants.input_ttl_s }
    fail_job(record, grants.now, grants.max_dead, why)
    table.insert(grants.ended, { id, why.code, number })
    return
  end

  if broken > 1 then
    -- Its model call broke off while it was the only job in the call. Of such jobs of a model, one runs at a time in the partition: if
    -- one of them kills the model server, the calls of the others must not break off with it each time.
    local alone = model_key(stream, 'alone')
    local other = redis.call('GET', alone)
    if other and other ~= id and redis.call('HGET', grants.prefix .. other, 'status') == 'processing' then
      redis.call('HSET', key, 'status', 'pending')
      redis.call('XCLAIM', stream, GROUP, WAITING, 0, entry, 'IDLE', grants.put_off_idle_ms, 'JUSTID')
      grants.put_off = grants.put_off + 1
      return
    end
    -- No call takes longer than an hour.
    redis.call('SET', alone, id, 'EX', 3600)
  end

  attempt = attempt + 1
  local age_ms = age(created_at, grants.now)
  if waited_ms then
    redis.call('HSET', key, 'status', 'processing', 'attempt', attempt)
    redis.call('HDEL', key, 'next_attempt_at')
  elseif job[6] then
    deadline = int(grants.now + tonumber(job[6]))
    redis.call('HSET', key, 'status', 'processing', 'attempt', int(attempt), 'waited_ms', int(age_ms),
      'run_deadline', deadline)
  else
    redis.call('HSET', key, 'status', 'processing', 'attempt', int(attempt), 'waited_ms', int(age_ms))
  end
  redis.call('SPUBLISH', key, 'processing')
  local left_ms = deadline and math.max(tonumber(deadline) - grants.now, 0) or -1
  local request_id, traceparent, input = job[7] or '', job[8] or '', job[9] or ''
  grants.bytes = grants.bytes + #input
  -- `Granted` reads from these lines in which place each value is.
  local jobs, at = grants.jobs, 11 * grants.count
  jobs[at + 1] = id
  jobs[at + 2] = number
  jobs[at + 3] = attempt
  jobs[at + 4] = released
  jobs[at + 5] = lost
  jobs[at + 6] = broken
  jobs[at + 7] = age_ms
  jobs[at + 8] = left_ms
  jobs[at + 9] = request_id
  jobs[at + 10] = traceparent
  jobs[at + 11] = input
  grants.count = grants.count + 1
end

-- Claims delivered entries in order, until their inputs reach `max_bytes`. Returns the ids of the other entries, or nil.
local function grant_each(grants, number, entries)
  for i, entry in ipairs(entries) do
    if grants.bytes >= grants.max_bytes then
      local rest = {}
      for j = i, #entries do
        rest[j - i + 1] = entries[j][1]
      end
      return rest
    end
    grant(grants, number, entry[1], entry[2][2])
  end
end

-- Makes delivered entries due at once. The next consumer that looks for due entries claims them.
local function make_due(grants, number, entries)
  local arguments = { grants.streams[number], GROUP, WAITING, 0, unpack(entries) }
  for _, option in ipairs({ 'IDLE', grants.lease_ms, 'JUSTID' }) do
    table.insert(arguments, option)
  end
  redis.call('XCLAIM', unpack(arguments))
end

-- The reply of both scripts.
local function granted(grants, cursors, groups_created)
  return { 'granted', grants.jobs, grants.ended, table.concat(grants.reclaimed, ' '), grants.stale, cursors,
    groups_created }
end
