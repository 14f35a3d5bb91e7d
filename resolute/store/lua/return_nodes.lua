#!lua flags=allow-oom
-- Hands nodes back that a process holds, or took from the stream without claiming: to another
-- queue, for later (a limiter), or at shutdown. No attempt is used up.
-- KEYS inbox stats stream timers +item: flow, target stream
-- ARGV common: process
-- ITEM flow_key target_key flow entry seq index token queue delay hold costs
-- `delay` (ms) above 0 defers it; `hold` is a limiter's reservation, kept in the record. `costs` is what
-- was spent before it was handed back, see add_costs.
-- RETURNS {OK | STALE | GONE} for each; a resend by the holder answers as the first time.
-- @include common
-- @include node

local common = cmsgpack.unpack(ARGV[1])
local process = common[1]
local now = now_ms()
local dropped, stale = {}, 0

local replies = for_each(2, 1, function(packed)
  local flow_key, target, flow, entry, seq, index, token, queue, delay, hold, costs =
    unpack(cmsgpack.unpack(packed))
  local node = load_node(KEYS[flow_key], flow, seq, index)
  if not node then
    dropped[#dropped + 1] = entry
    return {GONE}
  end
  if not is_held(node, token, process) and not is_unclaimed(node, token) then
    local r = node.record
    refuse_garbled(r, token, process, entry)
    dropped[#dropped + 1] = entry
    local skipped = r.state == SKIPPED and r.token == token
    if skipped or r.token == next_token(token) then return {OK} end
    stale = stale + 1
    return {STALE}
  end
  if costs ~= '' then add_costs(node.key, costs) end
  if node.status == FAILING then
    settle(node, KEYS[1], SKIPPED, now, {}, '')
  elseif delay > 0 and node.record.hold == WOKEN and is_in_line({hold = hold}) then
    -- A place became free for it since it was refused one: who woke it did not find it waiting.
    hand_out(node, KEYS[target], queue, hold)
  elseif delay > 0 then
    defer(node, KEYS[4], KEYS[1], queue, now + delay, hold)
  else
    hand_out(node, KEYS[target], queue)
  end
  dropped[#dropped + 1] = entry
  return {OK}
end)

drop_entries(KEYS[3], WORKERS, dropped)
if stale > 0 then redis.call('HINCRBY', KEYS[2], 'stale_attempts', stale) end
return replies
