#!lua flags=allow-oom
-- Takes runs that are not open out of the indexes of open runs. The hash decides, at this moment:
-- the run may have ended, or begun anew, since the caller looked.
-- KEYS open +item: flow, index of its flow
-- ARGV common: (none)
-- ITEM flow_key index_key id
-- RETURNS {OK} where a place was taken out | {SKIP}
-- @include common

return for_each(2, 1, function(packed)
  local flow_key, index_key, id = unpack(cmsgpack.unpack(packed))
  local status = redis.call('HGET', KEYS[flow_key], 'status')
  if status == RUNNING or status == FAILING or status == COMPENSATING then return {SKIP} end
  local gone = redis.call('ZREM', KEYS[1], id) + redis.call('ZREM', KEYS[index_key], id)
  return {gone > 0 and OK or SKIP}
end)
