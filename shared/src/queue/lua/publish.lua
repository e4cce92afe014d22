#!lua flags=allow-oom
-- publish: writes the descriptions of a worker's models, and removes those that no worker has published for too long. A removed
-- model leaves a mark, by which its waiting jobs are found. Marks are deleted after a while.
-- KEYS[1]  descriptions hash: model -> "<last published, Unix ms> <description, JSON>", or "<removed, Unix ms>", "0" = just now
-- ARGV[1]  time after which a description is removed, ms
-- ARGV[2]  time after which a mark is deleted, ms
-- ARGV[3...]  model, its description (JSON), model, ...
-- Returns  {"published", number of descriptions}
local now = server_now()
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], int(now) .. ' ' .. ARGV[i + 1])
end
local models = redis.call('HGETALL', KEYS[1])
local removed, old, count = {}, {}, 0
for i = 1, #models, 2 do
  local since = tonumber(string.match(models[i + 1], '^%d+')) or 0
  if string.find(models[i + 1], ' ', 1, true) then
    if now - since > tonumber(ARGV[1]) then
      table.insert(removed, models[i])
    else
      count = count + 1
    end
  elseif since == 0 then
    table.insert(removed, models[i])
  elseif now - since > tonumber(ARGV[2]) then
    table.insert(old, models[i])
  end
end

for _, model in ipairs(removed) do
  redis.call('HSET', KEYS[1], model, int(now))
end
for _, model in ipairs(old) do
  redis.call('HDEL', KEYS[1], model)
end
return { 'published', count }
