#!lua flags=allow-oom
-- Says before anything is written to it which folder of the storage is a run's. From then on
-- somebody answers for what is in there: at its time a coordinator looks which runs have it.
-- KEYS folders due +item: flow, those above it
-- ARGV common: lasting   (ms after which a coordinator looks)
-- ITEM flow_key flow folder starting above_keys above
--   starting: 1 for the input of a run that is to be started
--   above: the runs that its id says it is of, the nearest first; a place in KEYS for each. A run
--   and the open ones above it have one folder: what it returns may be in it.
-- RETURNS {OK, folder} | {STALE | GONE} for each; the folder is the one it has, if it has one
-- @include common

local lasting = cmsgpack.unpack(ARGV[1])[1]
local now = now_ms()

local function has(folder, flow)
  redis.call('ZADD', KEYS[1], 0, folder .. ' ' .. flow)
  redis.call('ZADD', KEYS[2], 'NX', now + lasting, folder)
end

local function is_open(status)
  return status == RUNNING or status == FAILING or status == COMPENSATING
end

return for_each(2, 1, function(packed)
  local flow_key, flow, folder, starting, above_keys, above = unpack(cmsgpack.unpack(packed))
  if starting == 1 then
    has(folder, flow)
    return {OK, folder}
  end
  local key = KEYS[flow_key]
  local h = redis.call('HMGET', key, 'status', 'folder')
  if not h[1] then return {GONE} end
  if not is_open(h[1]) then return {STALE} end
  if h[2] then return {OK, h[2]} end
  local found, without = nil, {}
  for i = 1, #above do
    local a = redis.call('HMGET', KEYS[above_keys[i]], 'status', 'folder')
    found = found or a[2]
    if is_open(a[1]) and not a[2] then without[#without + 1] = i end
  end
  folder = found or folder
  redis.call('HSET', key, 'folder', folder)
  has(folder, flow)
  for _, i in ipairs(without) do
    redis.call('HSET', KEYS[above_keys[i]], 'folder', folder)
    has(folder, above[i])
  end
  return {OK, folder}
end)
