#!lua flags=allow-oom
-- Commits transitions of runs whose rev is still what it was, and acknowledges their events.
-- KEYS inbox timers open +item: flow, streams, index keys
-- ARGV common: now_unused
-- ITEM flow_key event expect rev seq fields step streams page skip ending   BLOB one for each stream
--   fields: hash fields and values, flat        step: 'pc|undo' of a new step, or ''
--   streams: a key index for each entry, in order of index
--   page: the event of the next page, or {}     skip: {start, stop, more} or {}
--   ending: {id, status, open:flow key, status key, status:flow key, channel, ttl ms} or {}
-- RETURNS {OK | CONFLICT | GONE} for each. On CONFLICT the event stays.
-- @include common
-- @include node

local now = now_ms()
local acked = {}

-- Appends to one stream with ids that follow each other, so that the first one says them all.
local function append(positions, stream, blob)
  local at = positions[stream]
  if at then
    at.seq = at.seq + 1
    at.count = at.count + 1
    redis.call('XADD', KEYS[stream], at.ms .. '-' .. at.seq, 'e', blob)
  else
    local id = redis.call('XADD', KEYS[stream], '*', 'e', blob)
    local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
    positions[stream] = {ms = ms, seq = tonumber(seq), first = id, count = 1}
    positions[#positions + 1] = stream
  end
end

local function skip_nodes(item, flow_key, id)
  local start, stop, more = unpack(item[10])
  local seq = item[5]
  local node
  for index = start, stop - 1 do
    node = load_node(flow_key, id, seq, index)
    local r = node.record
    if r.state == WAITING then
      redis.call('ZREM', KEYS[2], table.concat({'node', r.queue, id, seq, index, r.token}, '|'))
    end
    if r.state == WAITING or r.state == READY then
      settle(node, KEYS[1], SKIPPED, now, {}, '')
    end
  end
  if more == 1 and node.pending > 0 then
    push_event(KEYS[1], LOOK, id, node.plan, node.pc, seq, item[4], node.queue, '')
  end
end

local function finish(ending)
  local id, status, open_flow, by_status, by_both, channel, ttl = unpack(ending)
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[open_flow], id)
  redis.call('ZADD', KEYS[by_status], now, id)
  redis.call('ZADD', KEYS[by_both], now, id)
  redis.call('PUBLISH', channel, status)
  return ttl
end

local function commit(item, at)
  local flow_index, event, expect, rev, seq, fields, step, streams, page, skip, ending = unpack(item)
  local key = KEYS[flow_index]
  local there = redis.call('HMGET', key, 'rev', 'status')
  if not there[1] then
    acked[#acked + 1] = event
    return {GONE}
  end
  if there[1] == rev then
    acked[#acked + 1] = event
    return {OK}
  end
  if there[1] ~= expect then return {CONFLICT} end
  fields[#fields + 1] = 'rev'
  fields[#fields + 1] = rev
  fields[#fields + 1] = 'moved'
  fields[#fields + 1] = now
  if step ~= '' then
    fields[#fields + 1] = 's:' .. seq
    fields[#fields + 1] = step .. '|' .. now
  end
  if #streams > 0 then
    local positions = {}
    for i = 1, #streams do append(positions, streams[i], ARGV[at + i]) end
    local pages = step == '' and redis.call('HGET', key, 'pages') or ''
    for i = 1, #positions do
      local p = positions[positions[i]]
      pages = pages .. p.first .. ' ' .. p.count .. ' ' .. KEYS[positions[i]] .. '\n'
    end
    fields[#fields + 1] = 'pages'
    fields[#fields + 1] = pages
  end
  if ending[1] then
    fields[#fields + 1] = 'ended'
    fields[#fields + 1] = now
  end
  redis.call('HSET', key, unpack(fields))
  if page[1] then redis.call('XADD', KEYS[1], '*', 'e', cmsgpack.pack(page)) end
  if skip[1] then skip_nodes(item, key, skip[4]) end
  if ending[1] then redis.call('PEXPIRE', key, finish(ending)) end
  acked[#acked + 1] = event
  return {OK}
end

-- Items differ in length here, so that this walks by itself instead of for_each.
local replies = {}
local at = 2
while at <= #ARGV do
  local ok, item = pcall(cmsgpack.unpack, ARGV[at])
  if not ok then return redis.error_reply('ERR item ' .. at .. ' is damaged') end
  local done, answer = pcall(commit, item, at)
  if not done then
    local text = type(answer) == 'table' and (answer.err or '') or tostring(answer)
    answer = {ERROR, text}
  end
  replies[#replies + 1] = answer
  at = at + 1 + #item[8]
end
if #acked > 0 then
  local ids = {}
  for i = 1, #acked do if acked[i] ~= '' then ids[#ids + 1] = acked[i] end end
  drop_entries(KEYS[1], COORDINATORS, ids)
end
return replies
