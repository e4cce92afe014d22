#!lua flags=allow-oom
-- complete: stores results and ends the jobs of a model, each by itself, if its attempt holds it.
-- KEYS[1]  the model's stream of priority high
-- KEYS[2]  of priority normal
-- KEYS[3]  of priority low
-- KEYS[4...]  job hashes
-- ARGV[1]  lifetime of a terminal job, s
-- ARGV[2...]  per job: attempt token, stream number, result: JSON, tensors, or bytes with a content type
-- Returns  a word for each job: "completed" also if this attempt has completed the job before | "lost" another attempt
--          holds the job or ended it | "cancelled" | "missing" no such job
-- A result that begins with this byte is tensors: MARK in src/tensor/stored_outputs.rs.
local TENSORS = 2
-- One that begins with this byte is bytes; the length of their content type and the content type follow: src/content.rs.
local BYTES = 0xe1

-- Checks everything before the first write. Lists of the jobs to end: their keys, when they were accepted, their results, their
-- entries in each stream, and the charges of large jobs. Lists are cheaper than a table for each job.
local outcomes, ending, accepted, results, entries, charges = {}, {}, {}, {}, { {}, {}, {} }, {}
for i = 4, #KEYS do
  local key, argument = KEYS[i], 3 * i - 10
  local token = ARGV[argument]
  local job = redis.call('HMGET', key, 'status', 'attempt', 'entry', 'at', 'charged')
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
-- Replaces the charge of the input by that of the result. This may fail, so it is done before the first job ends.
for i, charged in pairs(charges) do
  local bytes, payer = charged_of(charged)
  local size = #results[i]
  recharge(ending[i], payer, bytes, NOT_DUE, size > LARGE and size or 0, due_in(now, ARGV[1]))
  redis.call('HDEL', ending[i], 'charged')
end
for i, key in ipairs(ending) do
  local result = results[i]
  -- A reader must know the size of a large result before it reads the result.
  if #result <= LARGE then
    close_job(key, accepted[i], now, 'completed', ARGV[1], 'result', result)
  else
    local size = (string.byte(result) == TENSORS and '#' or '@') .. #result
    if string.byte(result) == BYTES then
      size = '%' .. #result .. ' ' .. string.sub(result, 3, 2 + string.byte(result, 2))
    end
    close_job(key, accepted[i], now, 'completed', ARGV[1], 'result', size, 'large_result', result)
  end
end
for number, ended in ipairs(entries) do
  if #ended > 0 then
    remove_entries(KEYS[number], ended)
  end
end
return outcomes
