-- accept: how a new job comes in: what `submit` and `requeue` share. Stands behind lib.
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
