-- accept: shared by `submit` and `requeue`: stores a new job. Needs lib, clock and quota.
-- Number of outstanding jobs of a model in a partition. The entries of ended jobs are deleted, so the lengths are exact.
local function outstanding(high, normal, low)
  return redis.call('XLEN', high) + redis.call('XLEN', normal) + redis.call('XLEN', low)
end

-- The reply for a job that the partition or its model has no room for, or nil. `limit`, `limit_of_model`: largest numbers of outstanding
-- jobs, 0 = no limit; `others`: those of other models, as of the caller's last count. The script counts only the job's own model:
-- lengths of many streams would cost every call many commands.
local function no_room(depth, others, limit, limit_of_model)
  if limit > 0 and depth + others >= limit then
    return { 'full', depth + others }
  end
  if limit_of_model > 0 and depth >= limit_of_model then
    return { 'model_full', depth }
  end
end

-- The largest number of charges that a refusal reads.
local MOST_READ = 256

-- Time until a payer may have room, ms. 0 = as soon as one of its jobs ends, -1 = unknown. Reads only the first charges.
local function room_in(charges, payer, now)
  local function first(from, to)
    for _, charge in ipairs(redis.call('ZRANGEBYLEX', charges, from, to, 'LIMIT', 0, MOST_READ)) do
      local due, of = string.match(charge, '^(%d+) %S+ %d+ (.+)$')
      if of == payer then
        return tonumber(due)
      end
    end
  end
  if first('[' .. NOT_DUE, '+') then
    return 0
  end
  local due = first('-', '(' .. NOT_DUE)
  return due and math.max(due - now, 0) or -1
end

-- The reply for a job that would exceed the quota of its payer, or nil. `most`: bytes; 0 = no limit.
local function over_quota(job, payer, bytes, most)
  if most > 0 and tonumber(redis.call('HGET', quota_key(job, 'bytes'), payer) or 0) + bytes > most then
    return { 'over_quota', room_in(quota_key(job, 'charges'), payer, server_now()) }
  end
end

-- Adds a job to the log. Returns the id of the log entry. The parameters are those of `accept`.
local function list(log, log_id, owner, record)
  if owner == '' and not record then
    return redis.call('XADD', log, '*', 'id', log_id)
  end
  local entry_fields = { 'id', log_id }
  if owner ~= '' then
    table.insert(entry_fields, 'owner')
    table.insert(entry_fields, owner)
  end
  if record then
    table.insert(entry_fields, 'idem')
    table.insert(entry_fields, string.match(record, '[^:]+$'))
  end
  return redis.call('XADD', log, '*', unpack(entry_fields))
end

-- Log ids that are ahead of the clock by more than this are noted, ms.
local AHEAD = 1000
-- The server's time, read at most once in a call.
local now

-- The time at which the job of a log entry is accepted, Unix ms. It is never later than the id of the entry. Ids never decrease:
-- after the clock was ahead and went back, they stand still, and only TIME returns the time. The first id of a millisecond is
-- the time itself. The key '<log>:ahead' notes since when and up to which id the ids were ahead, for listings by time.
local function accepted_at(log, entry)
  local id_ms, number = string.match(entry, '^(%d+)-(%d+)$')
  if number == '0' then
    return id_ms
  end
  now = now or server_now()
  id_ms = tonumber(id_ms)
  if id_ms > now + AHEAD then
    local key = log .. ':ahead'
    local from, to = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
    if not from or now < tonumber(from) or id_ms > tonumber(to) then
      redis.call('SET', key, int(math.min(now, tonumber(from or now))) .. ' ' .. int(math.max(id_ms, tonumber(to or 0))))
    end
  end
  return int(math.min(id_ms, now))
end

-- Writes a new pending job into the log, its stream and its hash. `model`: name of the model, the field `m`. Its name and that of `at`
-- are short, because they are part of every finished job. `log_id`: the 16 bytes of the id; `owner`: '' = no owner; `record`: key of the idempotency record, which is deleted with the job, or nil; `max_queue_ms`: longest wait in the queue, 0 =
-- no limit; `...`: name and value of each further field.
local function accept(job, id, model, stream, log, log_id, owner, record, max_queue_ms, ...)
  local created_at = accepted_at(log, list(log, log_id, owner, record))
  local entry = redis.call('XADD', stream, '*', 'id', id)
  redis.call('HSET', job, 'status', 'pending', 'm', model, 'at', created_at, 'entry', entry, ...)
  if max_queue_ms > 0 then
    redis.call('HSET', job, 'queue_deadline', int(tonumber(created_at) + max_queue_ms))
  end
  if owner ~= '' then
    redis.call('HSET', job, 'owner', owner)
  end
end
