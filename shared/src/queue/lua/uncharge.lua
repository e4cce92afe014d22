#!lua flags=allow-oom
-- uncharge: deletes charges that are due: Redis has deleted the bytes. See quota.
-- KEYS[1]  charges, sorted set
-- KEYS[2]  sums of the payers, hash
-- KEYS[3]  recount, hash
-- ARGV[1]  largest number of charges to delete
-- Returns  {"uncharged", number of charges deleted}
local due = redis.call('ZRANGEBYLEX', KEYS[1], '-', '(' .. due_in(server_now(), 0), 'LIMIT', 0, ARGV[1])
local seen = redis.call('HGET', KEYS[3], '')
local sums, recounted = {}, {}
for _, charge in ipairs(due) do
  local place, bytes, payer = string.match(charge, '^(%d+ %S+) (%d+) (.+)$')
  if place then
    sums[payer] = (sums[payer] or 0) - bytes
    if seen and place <= seen then
      recounted[payer] = (recounted[payer] or 0) - bytes
    end
  end
end

if #due > 0 then
  redis.call('ZREM', KEYS[1], unpack(due))
end
for payer, bytes in pairs(sums) do
  add(KEYS[2], payer, bytes)
end
for payer, bytes in pairs(recounted) do
  add(KEYS[3], payer, bytes)
end
return { 'uncharged', #due }
