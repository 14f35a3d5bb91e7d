#!lua flags=allow-oom
-- Keeps how far a node has come, as its heartbeat tells it, for the attempt after this one.
-- KEYS +item: flow
-- ARGV common: process
-- ITEM flow_key flow seq index token   BLOB progress
-- `progress` is [0, what was told]: no page is kept.
-- RETURNS {OK | STALE | GONE} for each; STALE where the process does not hold the node (any more)
-- @include common
-- @include node

local process = cmsgpack.unpack(ARGV[1])[1]

return for_each(2, 2, function(packed, at)
  local flow_key, flow, seq, index, token = unpack(cmsgpack.unpack(packed))
  local node = load_node(KEYS[flow_key], flow, seq, index)
  if not node then return {GONE} end
  if not is_held(node, token, process) then return {STALE} end
  redis.call('HSET', node.key, 'p:' .. seq .. '.' .. index, ARGV[at + 1])
  return {OK}
end)
