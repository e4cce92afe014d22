#!lua flags=allow-oom
-- publish: writes the descriptions of a worker's models, and removes those that no worker has published for too long.
-- KEYS[1]  descriptions hash: model -> "<last published, Unix ms> <description, JSON>"
-- ARGV[1]  time after which a description is removed, ms
-- ARGV[2...]  model, its description (JSON), model, ...
-- Returns  {"published", number of descriptions}
local now = server_now()
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], int(now) .. ' ' .. ARGV[i + 1])
end
local models = redis.call('HGETALL', KEYS[1])
local old, count = {}, 0
for i = 1, #models, 2 do
  local published = tonumber(string.match(models[i + 1], '^%d+')) or 0
  if now - published > tonumber(ARGV[1]) then
    table.insert(old, models[i])
  else
    count = count + 1
  end
end

for _, model in ipairs(old) do
  redis.call('HDEL', KEYS[1], model)
end
return { 'published', count }
