#!lua flags=allow-oom
-- Hands nodes out for which a place of a concurrency limit became free, before their timer is due.
-- KEYS timers +item: flow, stream
-- ARGV common: (none)
-- ITEM flow_key stream_key flow seq index
-- RETURNS {OK | EXISTS | STALE | GONE} for each: EXISTS where it is on its way, or its process is
-- about to let it wait and now will not; STALE and GONE where it will never come
-- @include common
-- @include node

return for_each(2, 1, function(packed)
  local flow_key, stream, flow, seq, index = unpack(cmsgpack.unpack(packed))
  local node = load_node(KEYS[flow_key], flow, seq, index)
  if not node then return {GONE} end
  local r = node.record
  local is_over = r.state == COMPLETED_NODE or r.state == FAILED_NODE or r.state == SKIPPED
  if not node.open or node.current ~= seq or is_over then return {STALE} end
  if r.state == WAITING and is_in_line(r) then
    redis.call('ZREM', KEYS[1], timer_member(node))
    release(node, KEYS[stream], r.queue)
    return {OK}
  end
  if r.state == NODE_RUNNING and r.hold ~= WOKEN then
    r.hold = WOKEN
    redis.call('HSET', node.key, node.field, format_record(r))
  end
  return {EXISTS}
end)
