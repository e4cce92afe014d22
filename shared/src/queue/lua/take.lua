#!lua flags=allow-oom
-- take: claims up to n waiting jobs for a consumer: first those due again (lapsed leases, retries, released jobs), then new ones,
-- stream by stream, in the order of the streams. A delivery is a write; if the script dies after it, the entry is due again when the lease lapses.
-- KEYS[1...]  streams, of any models
-- ARGV[1]  prefix of the job hashes' keys
-- ARGV[2]  consumer
-- ARGV[3]  number of lost leases at which a job fails
-- ARGV[4]  lifetime of a terminal job, s
-- ARGV[5]  largest number of dead letters of a model
-- ARGV[6]  n, the largest number of jobs to claim
-- ARGV[7]  bytes of input after which no further job is claimed
-- ARGV[8]  lease, ms
-- ARGV[9]  lifetime of the input of a failed job, s
-- ARGV[10...]  XAUTOCLAIM cursor of each stream; none = do not look for due entries in this call
-- Returns  {"granted", jobs, ended, reclaimed, stale, cursors, groups_created};
--          jobs = the values of each claimed job, see grant, in one list;
--          ended = {id, error code, stream number} of jobs that failed instead of being claimed; reclaimed = the stream number of
--          each reclaimed job, in one text; cursors = one for each stream, if there were any
local CHUNK = 16
-- A call stops after this many entries whose jobs end or must wait instead of being claimed. A backlog of them must not make a
-- call long.
local MOST_CLEARED = 64
-- A job that must wait for another is due again after this time, ms.
local WAIT = 250
local grants = { streams = KEYS, prefix = ARGV[1], now = server_now(), max_lost = tonumber(ARGV[3]), max_dead = ARGV[5],
  ttl_s = ARGV[4], input_ttl_s = ARGV[9], max_bytes = tonumber(ARGV[7]), lease_ms = ARGV[8],
  put_off_idle_ms = int(math.max(tonumber(ARGV[8]) - WAIT, 0)), count = 0, jobs = {}, ended = {}, stale = 0, put_off = 0,
  reclaimed = {}, bytes = 0 }
local want = tonumber(ARGV[6])
local groups_created = 0

local function room()
  if grants.bytes >= grants.max_bytes or grants.stale + grants.put_off + #grants.ended >= MOST_CLEARED then
    return 0
  end
  return math.min(want - grants.count, CHUNK)
end

-- Runs a read. If the group is missing, creates it at 0, so that no waiting entry is skipped, and repeats the read.
local function read(number, ...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err and string.find(reply.err, 'NOGROUP', 1, true) then
    redis.call('XGROUP', 'CREATE', grants.streams[number], GROUP, '0', 'MKSTREAM')
    groups_created = groups_created + 1
    return redis.call(...)
  end
  if type(reply) == 'table' and reply.err then
    error(reply.err)
  end
  return reply
end

-- Undoes the delivery of new entries; `last` is the last entry that stays delivered. No other read came in between, so the next
-- read begins with them. A size in the entry would be known just as late, and reading entry by entry costs small jobs a command
-- each.
local function undeliver(number, entries, last)
  local stream = grants.streams[number]
  local moved = redis.pcall('XGROUP', 'SETID', stream, GROUP, last)
  if moved.err then
    -- The Redis user of an earlier release lacks this right.
    make_due(grants, number, entries)
  else
    redis.call('XACK', stream, GROUP, unpack(entries))
  end
end

local cursors = {}
if ARGV[10] then
  for number, stream in ipairs(KEYS) do
    cursors[number] = ARGV[9 + number]
    -- One call checks at most 10 x COUNT entries, so an empty reply with a cursor is not the end.
    for look = 1, 32 do
      local count = room()
      if count <= 0 then
        if look == 1 and cursors[number] == '0-0' then
          -- The stream was not searched. '0-0' would mean that it was searched to the end. No entry is older than '0-1'.
          cursors[number] = '0-1'
        end
        break
      end
      local reply = read(number, 'XAUTOCLAIM', stream, GROUP, ARGV[2], ARGV[8], cursors[number], 'COUNT', count)
      local rest = grant_each(grants, number, reply[2])
      if rest then
        make_due(grants, number, rest)
      end
      cursors[number] = rest and rest[1] or reply[1]
      if cursors[number] == '0-0' then
        break
      end
    end
  end
end

for number, stream in ipairs(KEYS) do
  local count = room()
  while count > 0 do
    local reply = read(number, 'XREADGROUP', 'GROUP', GROUP, ARGV[2], 'COUNT', count, 'STREAMS', stream, '>')
    local entries = reply and reply[1][2] or {}
    local rest = grant_each(grants, number, entries)
    if rest then
      undeliver(number, rest, entries[#entries - #rest][1])
    end
    count = #entries == count and room() or 0
  end
end
return granted(grants, cursors, groups_created)
