#!lua flags=allow-oom
-- complete: stores the results of attempts that hold their jobs and ends the jobs, each for itself.
-- KEYS[1]  stream of priority high
-- KEYS[2]  stream of priority normal
-- KEYS[3]  stream of priority low
-- KEYS[4...]  job hashes
-- ARGV[1]  lifetime of a terminal job, s
-- ARGV[2...]  per job: attempt token, stream number, result, JSON
-- Returns  a word for each job: "completed" also when this very attempt had completed it before | "lost" another attempt
--          owns the job or ended it | "cancelled" | "missing" no such job
-- All is checked before the first write. Of the jobs that are to end: their keys, when they were accepted, their results,
-- the entries in each stream, and what the jobs that are large were charged with. Lists are cheaper than a table for each job.
local outcomes, ending, accepted, results, entries, charges = {}, {}, {}, {}, { {}, {}, {} }, {}
for i = 4, #KEYS do
  local key, argument = KEYS[i], 3 * i - 10
  local token = ARGV[argument]
  local job = redis.call('HMGET', key, 'status', 'attempt', 'entry', 'created_at', 'charged')
  local refused = fence(job[1], job[2], token)
  if job[1] == 'completed' and job[2] == token then
    table.insert(outcomes, 'completed')
  elseif refused then
    table.insert(outcomes, refused[1])
  else
    table.insert(outcomes, 'completed')
    table.insert(ending, key)
    table.insert(accepted, job[4])
    table.insert(results, ARGV[argument + 2])
    if job[5] then
      charges[#ending] = job[5]
    end
    if job[3] then
      table.insert(entries[tonumber(ARGV[argument + 1])], job[3])
    end
  end
end

local now = server_now()
-- The input goes, and the result comes. This may fail, so it comes before the first end.
for i, charged in pairs(charges) do
  local bytes, payer = charged_of(charged)
  local size = #results[i]
  recharge(ending[i], payer, bytes, NOT_DUE, size > LARGE and size or 0, due_in(now, ARGV[1]))
  redis.call('HDEL', ending[i], 'charged')
end
for i, key in ipairs(ending) do
  local result = results[i]
  -- Whoever reads a job must know the size of a large result before it comes.
  if #result <= LARGE then
    close_job(key, accepted[i], now, 'completed', ARGV[1], 'result', result)
  else
    close_job(key, accepted[i], now, 'completed', ARGV[1], 'result', '@' .. #result, 'large_result', result)
  end
end
for number, ended in ipairs(entries) do
  if #ended > 0 then
    remove_entries(KEYS[number], ended)
  end
end
return outcomes
