#!lua flags=allow-oom
-- Sends signals to runs: a gate that waits for one is passed, else it is kept until it is taken.
-- KEYS inbox timers +item: flow
-- ARGV common: most   (most: how many are kept that nobody took, of one name)
-- ITEM flow_key flow name sender   BLOB payload
-- `sender` is the sender's own id of this signal: the same one twice is one signal.
-- RETURNS {OK | EXISTS | GONE | FULL} for each; EXISTS: the run has ended.
-- @include common
-- @include node

local most = cmsgpack.unpack(ARGV[1])[1]
local now = now_ms()

return for_each(2, 2, function(packed, at)
  local flow_key, flow, name, sender = unpack(cmsgpack.unpack(packed))
  local key, payload = KEYS[flow_key], ARGV[at + 1]
  local h = redis.call('HMGET', key, 'status', 'si:' .. sender, 'sn:' .. name, 'st:' .. name,
    'gate', 'seq')
  local status = h[1]
  if not status then return {GONE} end
  if h[2] then return {OK} end
  if status ~= RUNNING and status ~= FAILING and status ~= COMPENSATING then return {EXISTS} end
  local count, taken = tonumber(h[3] or '0'), tonumber(h[4] or '0')
  if count - taken >= most then return {FULL} end
  local node = status == RUNNING and h[5] == name and load_node(key, flow, tonumber(h[6]), 0)
  if node and node.record.state == WAITING and node.record.hold == TIMER_GATE then
    redis.call('HSET', key, 'si:' .. sender, now, 'sn:' .. name, count + 1, 'st:' .. name, taken + 1)
    pass_gate(node, KEYS[2], KEYS[1], now, payload)
  else
    redis.call('HSET', key, 'si:' .. sender, now, 'sn:' .. name, count + 1,
      'sg:' .. name .. ':' .. count, payload)
  end
  return {OK}
end)
