#!lua flags=allow-oom
-- Moves nodes whose timer is due back to their streams. A timer whose node has gone on is dropped.
-- KEYS timers +item: flow, stream
-- ARGV common: (none)
-- ITEM flow_key stream_key member flow seq index token queue
-- RETURNS {OK | STALE | GONE} for each
-- @include common
-- @include node

local now = now_ms()

return for_each(2, 1, function(packed)
  local flow_key, stream, member, flow, seq, index, token, queue = unpack(cmsgpack.unpack(packed))
  local due = redis.call('ZSCORE', KEYS[1], member)
  if not due or tonumber(due) > now then return {STALE} end
  local node = load_node(KEYS[flow_key], flow, seq, index)
  local answer = node and STALE or GONE
  if node and node.open and node.current == seq and node.record.state == WAITING
      and node.record.token == token then
    release(node, KEYS[stream], queue)
    answer = OK
  end
  redis.call('ZREM', KEYS[1], member)
  return {answer}
end)
