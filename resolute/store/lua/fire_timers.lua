#!lua flags=allow-oom
-- Does what the timers of runs are due for: a sleep is over, a gate or a whole run took too long, a
-- run that was to begin later begins. A timer whose run has gone on is dropped.
-- KEYS inbox timers claims +item: flow
-- ARGV common: nonce
-- ITEM flow_key member kind flow seq index token   BLOB error
-- RETURNS {OK | STALE | GONE} for each
-- @include common
-- @include node
-- @include run
-- @include claim

local nonce = cmsgpack.unpack(ARGV[1])[1]
local now = now_ms()

local function begin(key, flow)
  local h = redis.call('HMGET', key, 'status', 'due', 'rev', 'queue', 'flow', 'debounce')
  if not h[1] then return GONE end
  if h[1] ~= RUNNING or not h[2] then return STALE end
  redis.call('HDEL', key, 'due', 'debounce')
  end_debounce(KEYS[3], h[6], flow)
  push_event(KEYS[1], START, flow, '', 0, 0, h[3], h[4], h[5])
  return OK
end

local function overrun(key, flow, blob)
  local h = redis.call('HMGET', key, 'status', 'rev', 'plan', 'pc', 'seq', 'queue')
  if not h[1] then return GONE end
  if h[1] ~= RUNNING then return STALE end
  local rev = next_rev(h[2], nonce)
  redis.call('HSET', key, 'status', FAILING, 'rev', rev, 'error', blob, 'overran', 1)
  push_event(KEYS[1], LOOK, flow, h[3], h[4], h[5], rev, h[6], '')
  return OK
end

local function wait_is_over(key, flow, seq, index, token, blob)
  local node = load_node(key, flow, seq, index)
  if not node then return GONE end
  local r = node.record
  if not node.open or node.current ~= seq or r.state ~= WAITING or r.token ~= token then
    return STALE
  end
  if r.hold == TIMER_SLEEP then
    settle(node, KEYS[1], COMPLETED_NODE, now, {}, '')
  else
    local field = 'x:' .. r.queue
    fail_run(node, KEYS[1], blob, nonce)
    settle(node, KEYS[1], FAILED_NODE, now, {field, blob}, '')
  end
  return OK
end

return for_each(2, 2, function(packed, at)
  local flow_key, member, kind, flow, seq, index, token = unpack(cmsgpack.unpack(packed))
  local due = redis.call('ZSCORE', KEYS[2], member)
  if not due or tonumber(due) > now then return {STALE} end
  local key, blob, answer = KEYS[flow_key], ARGV[at + 1], STALE
  if kind == TIMER_START then
    answer = begin(key, flow)
  elseif kind == TIMER_DEADLINE then
    answer = overrun(key, flow, blob)
  else
    answer = wait_is_over(key, flow, seq, index, token, blob)
  end
  redis.call('ZREM', KEYS[2], member)
  return {answer}
end)
