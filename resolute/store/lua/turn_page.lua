#!lua flags=allow-oom
-- Keeps a page that the process fetched which holds the node, and hands the node out again for the
-- next one: its attempts begin anew.
-- KEYS inbox stats stream +item: flow, target stream
-- ARGV common: process
-- ITEM flow_key target_key flow entry seq index token queue number costs   BLOB page progress
-- `number` is that of the page, `progress` says which is next. `costs` is what it cost, see add_costs.
-- RETURNS {OK | STALE | GONE} for each; a resend by the holder answers as the first time.
-- @include common
-- @include node

local process = cmsgpack.unpack(ARGV[1])[1]
local now = now_ms()
local dropped, stale = {}, 0

local replies = for_each(2, 3, function(packed, at)
  local flow_key, target, flow, entry, seq, index, token, queue, number, costs =
    unpack(cmsgpack.unpack(packed))
  local node = load_node(KEYS[flow_key], flow, seq, index)
  dropped[#dropped + 1] = entry
  if not node then return {GONE} end
  local r = node.record
  if not is_held(node, token, process) then
    refuse_garbled(r, token, process, entry)
    local skipped = r.state == SKIPPED and r.token == token
    if skipped or r.token == next_token(token) then return {OK} end
    stale = stale + 1
    return {STALE}
  end
  if costs ~= '' then add_costs(node.key, costs) end
  if node.status == FAILING then
    settle(node, KEYS[1], SKIPPED, now, {}, '')
    return {OK}
  end
  local field = 'p:' .. seq .. '.' .. index
  redis.call('HSET', node.key, field, ARGV[at + 2], field .. '.' .. number, ARGV[at + 1])
  r.attempt, r.crashes = '1', '0'
  hand_out(node, KEYS[target], queue)
  return {OK}
end)

drop_entries(KEYS[3], WORKERS, dropped)
if stale > 0 then redis.call('HINCRBY', KEYS[2], 'stale_attempts', stale) end
return replies
