-- accept: how a new job comes in: what `submit` and `requeue` share. Stands behind lib.
-- Outstanding jobs of a partition: finished entries are deleted, so the lengths are exact.
local function outstanding(high, normal, low)
  return redis.call('XLEN', high) + redis.call('XLEN', normal) + redis.call('XLEN', low)
end

-- Writes a new pending job into its stream, its hash and the log. The id of its entry begins with the server's time, so
-- that nobody has to ask for it. `log_id`: the id's 16 bytes; `owner`: '' = nobody; `record`: key of the idempotency
-- record, which is forgotten with the job, or nil; `max_queue_ms`: longest wait in the queue, 0 = no limit; `...`: further
-- fields, flat.
local function accept(job, id, stream, log, log_id, owner, record, max_queue_ms, ...)
  local entry = redis.call('XADD', stream, '*', 'id', id)
  local created_at = string.match(entry, '^%d+')
  redis.call('HSET', job, 'status', 'pending', 'created_at', created_at, 'entry', entry, ...)
  if max_queue_ms > 0 then
    redis.call('HSET', job, 'queue_deadline', int(tonumber(created_at) + max_queue_ms))
  end
  if owner ~= '' then
    redis.call('HSET', job, 'owner', owner)
  elseif not record then
    redis.call('XADD', log, '*', 'id', log_id)
    return
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
  redis.call('XADD', log, '*', unpack(entry_fields))
end
