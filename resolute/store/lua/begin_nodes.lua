#!lua flags=allow-oom
-- Claims nodes for a process just before it starts them, and reads what their inputs need.
-- KEYS stream +item: flow
-- ARGV common: process queue
-- ITEM flow_key flow entry seq index token fields   (fields: hash fields to read)
-- RETURNS now (us), then for each {OK, rev, hold, values...} | {STALE | SKIP | GONE}
-- The same process asking twice gets the same answer. What is not begun leaves the stream.
-- @include common
-- @include node

local common = cmsgpack.unpack(ARGV[1])
local process, queue = common[1], common[2]
local now = now_us()
local dropped = {}

local function refuse(code, entry)
  dropped[#dropped + 1] = entry
  return {code}
end

local replies = for_each(2, 1, function(item)
  local flow_key, flow, entry, seq, index, token, fields = unpack(item)
  local node = load_node(KEYS[flow_key], flow, seq, index)
  if not node then return refuse(GONE, entry) end
  local r = node.record
  if is_unclaimed(node, token) then
    if node.status == FAILING then return refuse(SKIP, entry) end
    r.state, r.process, r.queue, r.entry = NODE_RUNNING, process, queue, entry
    r.begun, r.ended = string.format('%.0f', now / 1000), ''
    redis.call('HSET', node.key, node.field, format_record(r))
  elseif not is_held(node, token, process) or r.entry ~= entry then
    return refuse(STALE, entry)
  end
  local answer = {OK, node.rev, r.hold}
  for at = 1, #fields, 1000 do
    local values = redis.call('HMGET', node.key, unpack(fields, at, math.min(#fields, at + 999)))
    for i = 1, #values do answer[#answer + 1] = values[i] end
  end
  return answer
end)

drop_entries(KEYS[1], WORKERS, dropped)
table.insert(replies, 1, string.format('%.0f', now))
return replies
