#!lua flags=allow-oom
-- Claims nodes for a process just before it starts them, and reads what their inputs need.
-- KEYS stream +item: flow
-- ARGV common: process queue
-- ITEM flow_key flow entry seq index token fields   (seq and index as text, fields of the hash)
-- RETURNS now (us), then for each {OK, rev, hold, values...} | {STALE | SKIP | GONE}
-- The same process asking twice gets the same answer. What is not begun leaves the stream.
-- @include common
-- @include node

local process, queue = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_us()
local begun = text(math.floor(now / 1000))
local dropped = {}
local AHEAD = 900 -- fields read along with the header; unpack must not be given more than 1,000

local function refuse(code, entry)
  dropped[#dropped + 1] = entry
  return {code}
end

-- `h` is the header with the first fields behind it; the rest of a long list is read now.
local function answer_with(key, rev, hold, fields, h)
  local answer = {OK, rev, hold}
  for i = 1, math.min(#fields, AHEAD) do answer[i + 3] = h[i + 5] end
  for at = AHEAD + 1, #fields, 1000 do
    local values = redis.call('HMGET', key, unpack(fields, at, math.min(#fields, at + 999)))
    for i = 1, #values do answer[#answer + 1] = values[i] end
  end
  return answer
end

-- A node with a record: it was handed out before, or begun already.
local function begin_again(key, item, h)
  local _, flow, entry, seq, index, token, fields = unpack(item)
  local node = load_node(key, flow, tonumber(seq), tonumber(index))
  local r = node.record
  if is_unclaimed(node, token) then
    if node.status == FAILING then return refuse(SKIP, entry) end
    r.state, r.process, r.queue, r.entry, r.begun, r.ended =
      NODE_RUNNING, process, queue, entry, begun, ''
    redis.call('HSET', key, node.field, format_record(r))
  elseif not is_held(node, token, process) or r.entry ~= entry then
    refuse_garbled(r, token, process, entry)
    return refuse(STALE, entry)
  end
  return answer_with(key, node.rev, r.hold, fields, h)
end

local replies = for_each(2, 1, function(packed)
  local item = cmsgpack.unpack(packed)
  local flow_key, _, entry, seq, index, token, fields = unpack(item)
  local key, field = KEYS[flow_key], 'n:' .. seq .. '.' .. index
  local h = redis.call('HMGET', key, 'status', 'token', 'rev', 'seq', field,
    unpack(fields, 1, math.min(#fields, AHEAD)))
  local status = h[1]
  if not status then return refuse(GONE, entry) end
  if status ~= RUNNING and status ~= COMPENSATING and status ~= FAILING then
    return refuse(STALE, entry)
  end
  if h[5] then return begin_again(key, item, h) end
  -- Without a record it is ready under the token of the current step.
  if h[2] ~= token or h[4] ~= seq then return refuse(STALE, entry) end
  if status == FAILING then return refuse(SKIP, entry) end
  redis.call('HSET', key, field, NODE_RUNNING .. '|' .. token .. '|' .. process .. '|1|0|' .. queue
    .. '|' .. entry .. '|' .. begun .. '||')
  return answer_with(key, h[3], '', fields, h)
end)

drop_entries(KEYS[1], WORKERS, dropped)
table.insert(replies, 1, text(now))
return replies
