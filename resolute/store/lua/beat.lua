#!lua flags=allow-oom
-- Raises the beats of a supervisor's processes and tells which of their nodes to cancel. A beat is
-- kept with its time (ms of Redis's clock): `count time`.
-- KEYS beats processes +item: cancels of the process
-- ARGV common: (none)
-- ITEM process cancels_key told   (told: those of the beat before, which are done with)
-- RETURNS for each {OK, node, ...} | {GONE}: GONE where its lease is over. A count that is none
-- begins anew.
-- @include common

local now = text(now_ms())

return for_each(2, 1, function(packed)
  local item = cmsgpack.unpack(packed)
  local process, cancels = item[1], KEYS[item[2]]
  if redis.call('HEXISTS', KEYS[2], process) == 0 then return {GONE} end
  local beat = redis.call('HGET', KEYS[1], process) or '0'
  if beat == '-1' then return {GONE} end
  local count = tonumber(string.match(beat, '^%d+') or 0)
  redis.call('HSET', KEYS[1], process, count + 1 .. ' ' .. now)
  for _, node in ipairs(item[3]) do redis.pcall('SREM', cancels, node) end
  local nodes = redis.pcall('SMEMBERS', cancels)
  if nodes.err then nodes = {} end  -- no set: nothing to cancel, and the beat counts
  table.insert(nodes, 1, OK)
  return nodes
end)
