#!lua flags=allow-oom
-- Deletes runs that ended before a time, and their places in the indexes.
-- KEYS index +item: flow, index of its flow
-- ARGV common: before (ms)
-- ITEM flow_key index_key id
-- RETURNS {OK | CONFLICT} for each; CONFLICT: it ended later than that
-- @include common

local before = cmsgpack.unpack(ARGV[1])[1]

return for_each(2, 1, function(packed)
  local flow_key, index_key, id = unpack(cmsgpack.unpack(packed))
  local ended = redis.call('ZSCORE', KEYS[1], id)
  if ended and tonumber(ended) > before then return {CONFLICT} end
  redis.call('UNLINK', KEYS[flow_key])
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZREM', KEYS[index_key], id)
  return {OK}
end)
