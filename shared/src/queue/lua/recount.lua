#!lua flags=allow-oom
-- recount: adds up the charges again, from where the last call stopped. Deletes charges of jobs that are gone or that an earlier
-- release ended. When all charges are counted, the new sums replace the old ones. See quota.
-- KEYS[1]  charges, sorted set
-- KEYS[2]  sums of the payers, hash
-- KEYS[3]  recount, hash
-- ARGV[1]  prefix of the job hashes' keys
-- ARGV[2]  largest number of charges to read
-- Returns  {"recounted", 1 if all are counted, else 0, dropped}
local seen = redis.call('HGET', KEYS[3], '')
-- A blank follows '<due> <job id>', and '!' sorts after a blank.
local from = seen and '(' .. seen .. '!' or '-'
local charges = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, ARGV[2])
local sums, stale, overcharged = {}, {}, {}
for _, charge in ipairs(charges) do
  local due, id, bytes, payer = string.match(charge, '^(%d+) (%S+) (%d+) (.+)$')
  local status = due == NOT_DUE and redis.call('HGET', ARGV[1] .. id, 'status')
  if due and (due ~= NOT_DUE or status and not TERMINAL[status]) then
    sums[payer] = (sums[payer] or 0) + bytes
    seen = due .. ' ' .. id
  else
    table.insert(stale, charge)
    if due then
      overcharged[payer] = (overcharged[payer] or 0) - bytes
    end
  end
end

if #stale > 0 then
  redis.call('ZREM', KEYS[1], unpack(stale))
end
for payer, bytes in pairs(overcharged) do
  add(KEYS[2], payer, bytes)
end
for payer, bytes in pairs(sums) do
  add(KEYS[3], payer, bytes)
end
if #charges == tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[3], '', seen or '')
  return { 'recounted', 0, #stale }
end
redis.call('HDEL', KEYS[3], '')
-- RENAME fails if no payer has a sum.
if redis.pcall('RENAME', KEYS[3], KEYS[2]).err then
  redis.call('EXPIRE', KEYS[2], 0)
end
return { 'recounted', 1, #stale }
