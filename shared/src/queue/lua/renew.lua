#!lua flags=allow-oom
-- renew: renews the leases of the jobs that a consumer still holds, by setting the idle time of their entries to zero.
-- KEYS[1...]  streams of the jobs
-- ARGV[1]  prefix of the job hashes' keys
-- ARGV[2]  consumer
-- ARGV[3...]  per job: job id, attempt token, stream number
-- Returns  {"renewed", {{job id, "lost" | "cancelled" | "missing"}, ...}} the jobs that this consumer must stop running
local held, gone = {}, {}
for i = 3, #ARGV, 3 do
  local key = ARGV[1] .. ARGV[i]
  local job = redis.call('HMGET', key, 'status', 'attempt', 'entry')
  local refused = fence(job[1], job[2], ARGV[i + 1])
  if refused then
    table.insert(gone, { ARGV[i], refused[1] })
  else
    table.insert(held, { KEYS[tonumber(ARGV[i + 2])], job[3] })
  end
end

for _, entry in ipairs(held) do
  claim(entry[1], ARGV[2], entry[2], 0)
end
return { 'renewed', gone }
