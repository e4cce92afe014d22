#!lua flags=no-writes
-- rights: returns the commands that the user of this connection may not run. Runs none of them.
-- ARGV[1...]  per command: number of its words, its words
-- Returns  numbers of the commands that are not allowed or unknown, counted from 1
local refused, number, at = {}, 0, 1
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  number = number + 1
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(ARGV, at + 1, at + words))
  if not (is_known and is_allowed) then
    table.insert(refused, number)
  end
  at = at + 1 + words
end
return refused
