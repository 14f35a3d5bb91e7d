#!lua flags=allow-oom
-- Deletes runs that ended before a time, and their places in the indexes. The hash decides, not
-- the index: the id may belong to a new run by now.
-- KEYS index +item: flow, index of its flow
-- ARGV common: before (ms)
-- ITEM flow_key index_key id
-- RETURNS {OK} for each; the places in the indexes are gone, the run if it was past its time
-- @include common

local before = cmsgpack.unpack(ARGV[1])[1]

return for_each(2, 1, function(packed)
  local flow_key, index_key, id = unpack(cmsgpack.unpack(packed))
  local h = redis.call('HMGET', KEYS[flow_key], 'status', 'ended')
  local status, ended = h[1], tonumber(h[2] or '')
  local is_open = status == RUNNING or status == FAILING or status == COMPENSATING
  if status and not is_open and ended and ended <= before then
    redis.call('UNLINK', KEYS[flow_key])
  end
  for _, index in ipairs({KEYS[1], KEYS[index_key]}) do
    local score = redis.call('ZSCORE', index, id)
    if score and tonumber(score) <= before then redis.call('ZREM', index, id) end
  end
  return {OK}
end)
