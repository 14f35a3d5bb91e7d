#!lua flags=allow-oom
-- Keeps items of the `each` that comes next, for the process that runs the node which lists them.
-- KEYS +item: flow
-- ARGV common: process
-- ITEM flow_key flow seq index token start count   BLOB item...
-- Of one node only. The first of the `count` items is number `start`; they are kept as those of the step after `seq`.
-- RETURNS {{OK | STALE | GONE}}
-- @include common
-- @include node

local process = cmsgpack.unpack(ARGV[1])[1]

local flow_key, flow, seq, index, token, start, count = unpack(cmsgpack.unpack(ARGV[2]))
local node = load_node(KEYS[flow_key], flow, seq, index)
if not node then return {{GONE}} end
if not is_held(node, token, process) then return {{STALE}} end
local fields = {}
for i = 3, count + 2 do
  fields[#fields + 1] = 'i:' .. (seq + 1) .. '.' .. (start + i - 3)
  fields[#fields + 1] = ARGV[i]
end
if fields[1] then redis.call('HSET', node.key, unpack(fields)) end
return {{OK}}
