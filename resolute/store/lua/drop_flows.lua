#!lua flags=allow-oom
-- Deletes runs that ended before a time, and their places in the indexes. The hash decides, not
-- the index: the id may belong to a new run by now, even of another flow, which is kept otherwise.
-- KEYS index due +item: flow, index of its flow
-- ARGV common: before flow   (before in ms; flow: whose runs these are, '' for any)
-- ITEM flow_key index_key id
-- RETURNS {OK} for each; the places in the indexes are gone, the run if it was past its time
-- What is no hash is left alone, and what is no index holds no place: else the same items would be
-- the oldest at every look, and those after them would never go.
-- What the run has in the storage is looked at next (judge_folders).
-- @include common

local before, flow = unpack(cmsgpack.unpack(ARGV[1]))

local function leave(index, id)
  local score = redis.pcall('ZSCORE', index, id)
  if type(score) == 'string' and tonumber(score) <= before then redis.call('ZREM', index, id) end
end

local now = now_ms()

return for_each(2, 1, function(packed)
  local flow_key, index_key, id = unpack(cmsgpack.unpack(packed))
  local h = redis.pcall('HMGET', KEYS[flow_key], 'status', 'ended', 'flow', 'folder')  -- or {err}
  local status, ended = h[1], tonumber(h[2] or '')
  local is_open = status == RUNNING or status == FAILING or status == COMPENSATING
  local is_another = flow ~= '' and h[3] and h[3] ~= flow
  leave(KEYS[index_key], id)
  if is_another then return {OK} end
  if status and not is_open and ended and ended <= before then
    if h[4] then redis.call('ZADD', KEYS[2], now, h[4]) end
    redis.call('UNLINK', KEYS[flow_key])
  end
  leave(KEYS[1], id)
  return {OK}
end)
