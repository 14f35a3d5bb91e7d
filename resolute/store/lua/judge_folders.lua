#!lua flags=allow-oom
-- Finds out of folders of the storage whether a run still has them: of one that no run has nobody
-- can get it back, so that it may be deleted. `flows` are some that are known to have had it.
-- KEYS folders due +item: flow
-- ARGV common: lasting again   (ms until it is due again: where a run has it, and where none has)
-- ITEM folder flow_keys flows   (a place in KEYS for each of the flows)
-- RETURNS {OK | EXISTS | STALE | GONE} for each; OK: delete it; STALE: there are more that had it;
-- GONE: it was deleted and forgotten. Of one that is to be deleted nobody else hears for a while.
-- @include common

local lasting, again = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_ms()

return for_each(2, 1, function(packed)
  local folder, flow_keys, flows = unpack(cmsgpack.unpack(packed))
  local kept = false
  for i, flow in ipairs(flows) do
    if redis.pcall('HGET', KEYS[flow_keys[i]], 'folder') == folder then
      kept = true
    else
      -- Nobody can begin to use it as this one's any more: see start_flow.
      redis.call('ZREM', KEYS[1], folder .. ' ' .. flow)
    end
  end
  local due = redis.call('ZSCORE', KEYS[2], folder)
  if not kept then
    local more = redis.call('ZRANGE', KEYS[1], '[' .. folder .. ' ', '(' .. folder .. '!', 'BYLEX',
      'LIMIT', 0, 1)
    if more[1] then return {STALE} end
    if not due then return {GONE} end
  end
  if not due or tonumber(due) <= now then
    redis.call('ZADD', KEYS[2], now + (kept and lasting or again), folder)
  end
  return {kept and EXISTS or OK}
end)
