#!lua flags=allow-oom
-- start: grants the jobs of entries that a blocking read delivered to this consumer. An entry that the consumer does
-- not own any more (it was paused past the lease) is left alone.
-- KEYS[1]  stream of priority high
-- KEYS[2]  stream of priority normal
-- KEYS[3]  stream of priority low
-- KEYS[4]  dead-letter stream
-- ARGV[1]  prefix of the job hashes' keys
-- ARGV[2]  consumer
-- ARGV[3]  most lost leases of a job before it fails
-- ARGV[4]  lifetime of a terminal job, s
-- ARGV[5]  most dead letters kept
-- ARGV[6...]  per entry: stream number, entry id, job id
-- Returns  as take
local grants = { streams = { KEYS[1], KEYS[2], KEYS[3] }, dead = { key = KEYS[4], max = ARGV[5] }, prefix = ARGV[1],
  now = server_now(), max_lost = tonumber(ARGV[3]), ttl_s = ARGV[4], jobs = {}, ended = {}, stale = 0, reclaimed = 0,
  bytes = 0 }
for i = 6, #ARGV, 3 do
  local number, entry = tonumber(ARGV[i]), ARGV[i + 1]
  local owned = redis.call('XPENDING', grants.streams[number], GROUP, entry, entry, 1, ARGV[2])
  -- A status other than pending means that a lost reply of this very call is being repeated: the lease returns the job.
  if #owned == 1 and redis.call('HGET', grants.prefix .. ARGV[i + 2], 'status') ~= 'processing' then
    -- The lease begins now: the delivery may have waited for long.
    claim(grants.streams[number], ARGV[2], entry, 0)
    grant(grants, number, entry, ARGV[i + 2])
  end
end
return granted(grants, {}, 0)
