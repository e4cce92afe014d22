#!lua flags=allow-oom
-- heartbeat: records that a worker is alive, and deletes those that were silent for too long.
-- KEYS[1]  workers hash: worker id -> "<last seen, Unix ms> <state, JSON>"
-- ARGV[1]  worker id
-- ARGV[2]  the worker's state, JSON; '' = the worker leaves
-- ARGV[3]  silence after which a worker counts as dead, ms
-- Returns  {"recorded", number of live workers}
local now = server_now()
local workers = redis.call('HGETALL', KEYS[1])
local dead, live = {}, 0
for i = 1, #workers, 2 do
  local seen = tonumber(string.match(workers[i + 1], '^%d+')) or 0
  if workers[i] ~= ARGV[1] and now - seen > tonumber(ARGV[3]) then
    table.insert(dead, workers[i])
  elseif workers[i] ~= ARGV[1] then
    live = live + 1
  end
end

for _, id in ipairs(dead) do
  redis.call('HDEL', KEYS[1], id)
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return { 'recorded', live }
end
redis.call('HSET', KEYS[1], ARGV[1], int(now) .. ' ' .. ARGV[2])
return { 'recorded', live + 1 }
