#!lua flags=no-writes
-- workers: returns the last heartbeat of each live worker.
-- KEYS[1]  workers hash, see heartbeat
-- ARGV[1]  silence after which a worker counts as dead, ms
-- Returns  {"workers", {{worker id, state, JSON, silence, ms}, ...}}
local now = server_now()
local workers = redis.call('HGETALL', KEYS[1])
local live = {}
for i = 1, #workers, 2 do
  local seen, state = string.match(workers[i + 1], '^(%d+) (.*)$')
  if seen and now - tonumber(seen) <= tonumber(ARGV[1]) then
    table.insert(live, { workers[i], state, math.max(now - tonumber(seen), 0) })
  end
end
return { 'workers', live }
