#!lua flags=allow-oom
-- Records failed attempts of nodes that a process holds: another attempt later, or the end.
-- KEYS inbox stats stream timers +item: flow
-- ARGV common: process nonce
-- ITEM flow_key flow entry seq index token key queue final best_effort delay costs   BLOB error
-- `final` and `best_effort` are 0 or 1, `delay` is in ms. In a failing run every failure is final.
-- `costs` is what the attempt cost, see add_costs.
-- RETURNS {OK | STALE | GONE} for each; a resend by the holder answers as the first time.
-- @include common
-- @include node

local common = cmsgpack.unpack(ARGV[1])
local process, nonce = common[1], common[2]
local now = now_ms()
local dropped, stale, failed, retried = {}, 0, 0, 0

local replies = for_each(2, 2, function(packed, at)
  local flow_key, flow, entry, seq, index, token, key, queue, final, best_effort, delay, costs =
    unpack(cmsgpack.unpack(packed))
  local blob = ARGV[at + 1]
  local node = load_node(KEYS[flow_key], flow, seq, index)
  if not node or not is_held(node, token, process) then
    local r = node and node.record
    if r then refuse_garbled(r, token, process, entry) end
    dropped[#dropped + 1] = entry
    if r and ((r.state == FAILED_NODE and r.token == token and r.process == process)
        or (r.state == WAITING and r.token == next_token(token))) then
      return {OK}
    end
    stale = stale + 1
    return {node and STALE or GONE}
  end
  local error_field = node.undoing > 0 and 'ux:' .. node.undoing or 'x:' .. key
  if costs ~= '' then add_costs(node.key, costs) end
  if final == 0 and node.status ~= FAILING then
    node.record.attempt = tonumber(node.record.attempt) + 1
    redis.call('HSET', node.key, error_field, blob)
    defer(node, KEYS[4], KEYS[1], queue, now + delay, '')
    retried = retried + 1
  else
    if best_effort == 1 then
      forget_output(node, key)
    elseif node.undoing == 0 then
      fail_run(node, KEYS[1], blob, nonce)
    end
    settle(node, KEYS[1], FAILED_NODE, now, {error_field, blob}, '', KEYS[3])
    failed = failed + 1
  end
  dropped[#dropped + 1] = entry
  return {OK}
end)

drop_entries(KEYS[3], WORKERS, dropped)
if failed > 0 then redis.call('HINCRBY', KEYS[2], 'nodes_failed', failed) end
if retried > 0 then redis.call('HINCRBY', KEYS[2], 'retries', retried) end
if stale > 0 then redis.call('HINCRBY', KEYS[2], 'stale_attempts', stale) end
return replies
