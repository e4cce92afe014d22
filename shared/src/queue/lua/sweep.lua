#!lua flags=allow-oom
-- sweep: walks a part of the log. Deletes the log entries and idempotency records of expired jobs. Writes a new stream entry for
-- an outstanding job if no consumer can claim the old one: it is gone from its stream, or it was delivered and is not pending
-- (an operator removed it or its consumer).
-- KEYS[1]  log stream
-- ARGV[1]  prefix of the job hashes' keys
-- ARGV[2]  id of the log entry after which to begin; '-' = at the oldest
-- ARGV[3]  largest number of log entries to read
-- ARGV[4]  stop at the first job that is younger than this, ms; 0 = do not stop
-- ARGV[5]  prefix of the idempotency records' keys
-- ARGV[6]  prefix of the streams' keys
-- Returns  {"swept", next log entry id or '-' at the end, forgotten, repaired}
local function read_last_delivered(stream)
  local info = redis.pcall('XINFO', 'GROUPS', stream)
  if info.err then
    return nil
  end
  for _, group in ipairs(info) do
    local name, last
    for i = 1, #group, 2 do
      if group[i] == 'name' then
        name = group[i + 1]
      elseif group[i] == 'last-delivered-id' then
        last = group[i + 1]
      end
    end
    if name == GROUP then
      return last
    end
  end
end

-- Whether stream entry id a is greater than b.
local function is_after(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if a_ms ~= b_ms then
    return tonumber(a_ms) > tonumber(b_ms)
  end
  return tonumber(a_seq) > tonumber(b_seq)
end

-- The text form of a job id, of which the log keeps the 16 bytes. Returns nil for anything else in the log.
local function id_of(bytes)
  if #bytes == 16 then
    return string.format('%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x', string.byte(bytes, 1, 16))
  end
end

-- The key of the idempotency record that a job was accepted with, or nil.
local function record_of(fields)
  for i = 3, #fields, 2 do
    if fields[i] == 'idem' then
      return ARGV[5] .. fields[i + 1]
    end
  end
end

-- Deletes an idempotency record, unless it belongs to a later job by now.
local function forget_record(record, id)
  local known = record and redis.call('GET', record)
  if known and string.match(known, ' (.+)$') == id then
    -- Deletes it. DEL would be one more right that the services need.
    redis.call('EXPIRE', record, 0)
  end
end

-- The last id that the group of a stream delivered; false = there is no group. Read once for each stream.
local delivered = {}
local function last_delivered(stream)
  if delivered[stream] == nil then
    delivered[stream] = read_last_delivered(stream) or false
  end
  return delivered[stream]
end

local function is_reachable(stream, entry)
  if not entry or #redis.call('XRANGE', stream, entry, entry) == 0 then
    return false
  end
  -- If there is no group, the next take creates it at 0, and all entries are new.
  local last = last_delivered(stream)
  if not last or is_after(entry, last) then
    return true
  end
  return #redis.call('XPENDING', stream, GROUP, entry, entry, 1) == 1
end

local from = ARGV[2] == '-' and '-' or '(' .. ARGV[2]
local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', ARGV[3])
local now, min_age = server_now(), tonumber(ARGV[4])
-- Compares the job's own time, since ids of the log may be ahead. A time in the future comes from a wrong clock, and proves nothing
-- about later entries.
local function is_recent(created_at)
  local accepted = tonumber(created_at or 0)
  return accepted > now - min_age and accepted <= now
end

local forgotten, orphans, at_end = {}, {}, #entries < tonumber(ARGV[3])
for _, entry in ipairs(entries) do
  local id = id_of(entry[2][2])
  local job = id and redis.call('HMGET', ARGV[1] .. id, 'status', 'entry', 'priority', 'at', 'm') or {}
  if not job[1] then
    table.insert(forgotten, entry[1])
    forget_record(record_of(entry[2]), id)
  elseif min_age > 0 and is_recent(job[4]) then
    at_end = true
    break
  elseif job[5] and not TERMINAL[job[1]] then
    local stream = stream_of(ARGV[6], job[5], job[3])
    if not is_reachable(stream, job[2]) then
      table.insert(orphans, { id = id, stream = stream, entry = job[2] })
    end
  end
end

if #forgotten > 0 then
  redis.call('XDEL', KEYS[1], unpack(forgotten))
end
for _, job in ipairs(orphans) do
  if job.entry then
    redis.call('XDEL', job.stream, job.entry)
  end
  local entry = redis.call('XADD', job.stream, '*', 'id', job.id)
  redis.call('HSET', ARGV[1] .. job.id, 'status', 'pending', 'entry', entry)
end
return { 'swept', at_end and '-' or entries[#entries][1], #forgotten, #orphans }
