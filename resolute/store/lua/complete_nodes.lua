#!lua flags=allow-oom
-- Commits the results of nodes that a process holds. The one that settles a step says so.
-- KEYS inbox stats stream +item: flow
-- ARGV common: process
-- ITEM flow_key flow entry seq index token key undo arg   BLOB output undo_input
-- `undo` is 1 for a node with a compensation, whose input is then `undo_input`; `arg` goes into
-- the event (a predicate's answer).
-- RETURNS {OK | STALE | GONE} for each; a resend by the holder answers as the first time.
-- @include common
-- @include node

local common = cmsgpack.unpack(ARGV[1])
local process = common[1]
local now = now_ms()
local dropped, stale, done = {}, 0, 0

local replies = for_each(2, 3, function(item, at)
  local flow_key, flow, entry, seq, index, token, key, undo, arg = unpack(item)
  local node = load_node(KEYS[flow_key], flow, seq, index)
  if not node or not is_held(node, token, process) then
    dropped[#dropped + 1] = entry
    local r = node and node.record
    if r and r.state == COMPLETED_NODE and r.token == token and r.process == process then
      return {OK}
    end
    stale = stale + 1
    return {node and STALE or GONE}
  end
  local fields = {'o:' .. key, ARGV[at + 1]}
  if node.undoing > 0 then fields[1] = 'uo:' .. node.undoing end
  if undo == 1 then
    local count = tonumber(redis.call('HGET', node.key, 'undos') or '0') + 1
    fields[3], fields[4] = 'undos', count
    fields[5], fields[6] = 'u:' .. count, node.pc .. '|' .. index .. '|' .. seq
    fields[7], fields[8] = 'ui:' .. count, ARGV[at + 2]
  end
  settle(node, KEYS[1], COMPLETED_NODE, now, fields, arg)
  dropped[#dropped + 1] = entry
  done = done + 1
  return {OK}
end)

drop_entries(KEYS[3], WORKERS, dropped)
if done > 0 then redis.call('HINCRBY', KEYS[2], 'nodes_completed', done) end
if stale > 0 then redis.call('HINCRBY', KEYS[2], 'stale_attempts', stale) end
return replies
