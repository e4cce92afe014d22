#!lua flags=allow-oom
-- start: claims the jobs of entries that blocking reads delivered to a consumer's inbox. An entry that another consumer has claimed
-- since is no longer in the inbox. Nor is one that an earlier call claimed: if its reply was lost, the lease lapses.
-- KEYS[1...]  streams, of any models
-- ARGV[1]  prefix of the job hashes' keys
-- ARGV[2]  consumer
-- ARGV[3]  number of lost leases at which a job fails
-- ARGV[4]  lifetime of a terminal job, s
-- ARGV[5]  largest number of dead letters of a model
-- ARGV[6]  inbox: the consumer to which the blocking reads deliver
-- ARGV[7]  bytes of input after which no further job is claimed; the other entries of the inbox are then due at once
-- ARGV[8]  lease, ms
-- ARGV[9]  lifetime of the input of a failed job, s
-- Returns  as take
local CHUNK = 16
local grants = { streams = KEYS, prefix = ARGV[1], now = server_now(), max_lost = tonumber(ARGV[3]), max_dead = ARGV[5],
  ttl_s = ARGV[4], input_ttl_s = ARGV[9], max_bytes = tonumber(ARGV[7]), lease_ms = ARGV[8], put_off_idle_ms = 0, count = 0,
  jobs = {}, ended = {}, stale = 0, put_off = 0, reclaimed = {}, bytes = 0 }
for number, stream in ipairs(KEYS) do
  local delivered = redis.pcall('XPENDING', stream, GROUP, '-', '+', CHUNK, ARGV[6])
  -- A stream without its group has delivered nothing. `take` creates the group.
  for _, pending in ipairs(delivered.err and {} or delivered) do
    if grants.bytes >= grants.max_bytes then
      make_due(grants, number, { pending[1] })
    else
      -- The lease begins now: the delivery may have waited long. An entry that an operator deleted is not returned.
      local claimed = redis.call('XCLAIM', stream, GROUP, ARGV[2], 0, pending[1])
      if #claimed == 1 then
        grant(grants, number, pending[1], claimed[1][2][2])
      end
    end
  end
end
return granted(grants, {}, 0)
