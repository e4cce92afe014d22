#!lua flags=allow-oom
-- prune: removes consumers of dead workers, but never one with pending entries: those would be lost.
-- KEYS[1...]  streams
-- ARGV[1]  silence after which a consumer may be removed, ms
-- ARGV[2...]  ids of the live workers; a consumer is named <worker id>-<number>
-- Returns  {"pruned", number of consumers removed}
local function is_live(consumer)
  for i = 2, #ARGV do
    if string.sub(consumer, 1, #ARGV[i] + 1) == ARGV[i] .. '-' then
      return true
    end
  end
  return false
end

local function fields(info)
  local named = {}
  for i = 1, #info, 2 do
    named[info[i]] = info[i + 1]
  end
  return named
end

local gone = {}
for _, stream in ipairs(KEYS) do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
  if not consumers.err then
    for _, info in ipairs(consumers) do
      local consumer = fields(info)
      local is_idle = consumer.pending == 0 and consumer.idle > tonumber(ARGV[1])
      if is_idle and consumer.name ~= WAITING and not is_live(consumer.name) then
        table.insert(gone, { stream, consumer.name })
      end
    end
  end
end

for _, consumer in ipairs(gone) do
  redis.call('XGROUP', 'DELCONSUMER', consumer[1], GROUP, consumer[2])
end
return { 'pruned', #gone }
