#!lua flags=allow-oom
-- start: grants the jobs of entries that blocking reads delivered to a consumer's inbox. What another consumer has claimed
-- meanwhile is not there any more, nor what an earlier call granted whose reply was lost: its lease returns it.
-- KEYS[1]  stream of priority high
-- KEYS[2]  stream of priority normal
-- KEYS[3]  stream of priority low
-- KEYS[4]  dead-letter stream
-- KEYS[5]  id of the job that was the last to run because its lone call broke off, string
-- ARGV[1]  prefix of the job hashes' keys
-- ARGV[2]  consumer
-- ARGV[3]  most lost leases of a job before it fails
-- ARGV[4]  lifetime of a terminal job, s
-- ARGV[5]  most dead letters kept
-- ARGV[6]  inbox: the name by which the consumer reads
-- ARGV[7]  bytes of input after which no further job is granted, and the rest of the inbox is due at once
-- ARGV[8]  lease, ms
-- ARGV[9]  lifetime of the input of a failed job, s
-- Returns  as take
local CHUNK = 16
local grants = { streams = { KEYS[1], KEYS[2], KEYS[3] }, dead = { key = KEYS[4], max = ARGV[5] }, prefix = ARGV[1],
  alone = { key = KEYS[5], idle_ms = 0 }, now = server_now(), max_lost = tonumber(ARGV[3]), ttl_s = ARGV[4],
  input_ttl_s = ARGV[9], max_bytes = tonumber(ARGV[7]), lease_ms = ARGV[8], count = 0, jobs = {}, ended = {}, stale = 0, put_off = 0, reclaimed = 0, bytes = 0 }
for number, stream in ipairs(grants.streams) do
  local delivered = redis.pcall('XPENDING', stream, GROUP, '-', '+', CHUNK, ARGV[6])
  -- Without its group a stream has delivered nothing. `take` makes the group.
  for _, pending in ipairs(delivered.err and {} or delivered) do
    if grants.bytes >= grants.max_bytes then
      make_due(grants, number, { pending[1] })
    else
      -- The lease begins now: the delivery may have waited for long. An entry that an operator deleted is not given.
      local claimed = redis.call('XCLAIM', stream, GROUP, ARGV[2], 0, pending[1])
      if #claimed == 1 then
        grant(grants, number, pending[1], claimed[1][2][2])
      end
    end
  end
end
return granted(grants, {}, 0)
