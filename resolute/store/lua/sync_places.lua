#!lua flags=allow-oom
-- Puts right which places of one concurrency limit a process has, and frees those of the dead.
-- KEYS held line woken
-- ARGV common: process round n lapse ttl mine dead
--   mine: <node>|<token> of those that it has; dead: processes whose lease is over
-- RETURNS {OK, node to wake...}, {OK, process that has a place...}, {OK, how many wait}
-- Only what was taken before `round` can be lost by it: a call that comes late, a second time, takes
-- nothing that the process was given since.
-- @include common
-- @include places

local process, round, n, lapse, ttl, mine, dead = unpack(cmsgpack.unpack(ARGV[1]))
local held, line, woken = KEYS[1], KEYS[2], KEYS[3]
local is_mine, is_dead, seen, processes = {}, {}, {}, {OK}
for _, field in ipairs(mine) do is_mine[field] = true end
for _, name in ipairs(dead) do is_dead[name] = true end

local found = redis.call('HGETALL', held)
for i = 1, #found, 2 do
  local owner, since = string.match(found[i + 1], '^(.*)|(%d+)$')
  local is_lost = owner == process and not is_mine[found[i]] and tonumber(since) < round
  if not owner or is_dead[owner] or is_lost then
    redis.call('HDEL', held, found[i])
  elseif not seen[owner] then
    seen[owner] = true
    processes[#processes + 1] = owner
  end
end
for _, field in ipairs(mine) do
  redis.call('HSETNX', held, field, process .. '|' .. round)
end

local told = wake_next(held, line, woken, n, now_ms(), lapse)
keep(KEYS, ttl)
return {told, processes, {OK, redis.call('ZCARD', line)}}
