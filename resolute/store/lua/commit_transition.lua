#!lua flags=allow-oom
-- Commits transitions of runs whose rev is still what it was, and acknowledges their events.
-- KEYS inbox timers open folders claims +item: flow, streams, index keys
-- ARGV common: (none)
-- ITEM flow_key event expect rev seq fields step streams page skip ending waiting deadline page_from turn family   BLOB entry... list
--   fields: hash fields and values, flat        step: 'pc|undo' of a new step, or ''
--   streams: for each entry in order of index the key of its stream; as many BLOBs follow
--   page: the event of the next page, or {}     skip: {start, stop, more, id} or {}
--   ending: {id, status, open:flow key, status key, status:flow key, channel, ttl ms, timers} or
--     {}; timers: members that are of no use any more
--   waiting: {id, kind, name, until, signal} of a gate or a sleep, or {}; until: Unix time in ms,
--     '+' and the ms from now, or '' for ever
--   deadline: {ms from now, member} of a run that begins and has one, or {}
--   page_from: the index from which a later page is dispatched, else -1: nodes that settle dispatch
--     others of a windowed step, so that it may be another one by now
--   turn: {pc, again, {pc, width, ...}, {signal, ...}, listed, named, most} of the head of a loop, or
--     {}; what the turn before wrote of its steps goes, but for what its compensations need; signals
--     are taken. A width of -1 is that of a list, which the run knows. A list of more than `listed`
--     items, a step of more than `named` nodes and what is above `most` fields goes bit by bit
--     (trim_turns)
--   family: what it does of the runs it starts, or of the one that started it (lib_child), or {};
--     the BLOB of a list that was put together for the latter comes last
-- Node-level writes do not change the rev. So where a server has lost some, an event or a state read
-- before may say that a step is settled which is not, any more, and the rev is the same: a step is
-- left only when `pending` is 0 here too.
-- RETURNS {OK | CONFLICT | GONE | LONG} for each. After OK what trim_turns has to begin with, if
-- anything; after LONG the key of the list that its parent is to be given. Then, and on CONFLICT,
-- nothing is done and the event stays.
-- @include common
-- @include node
-- @include run
-- @include child
-- @include claim

local now = text(now_ms())
local acked = {}

-- Appends the entries of a page, to each stream with ids that follow each other, so that the first
-- one says them all; what to remember of that, a line for each stream.
local function append(streams, at)
  if #streams == 1 then
    local key = KEYS[streams[1]]
    return redis.call('XADD', key, '*', 'e', ARGV[at + 1]) .. ' 1 ' .. key .. '\n'
  end
  local positions, order = {}, {}
  for i = 1, #streams do
    local stream = streams[i]
    local p = positions[stream]
    if p then
      p.seq, p.count = p.seq + 1, p.count + 1
      redis.call('XADD', KEYS[stream], p.ms .. '-' .. p.seq, 'e', ARGV[at + i])
    else
      local id = redis.call('XADD', KEYS[stream], '*', 'e', ARGV[at + i])
      local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
      positions[stream] = {ms = ms, seq = tonumber(seq), first = id, count = 1}
      order[#order + 1] = stream
    end
  end
  local pages = ''
  for i = 1, #order do
    local p = positions[order[i]]
    pages = pages .. p.first .. ' ' .. p.count .. ' ' .. KEYS[order[i]] .. '\n'
  end
  return pages
end

local function skip_nodes(flow_key, rev, seq, skip, family)
  local start, stop, more, id = unpack(skip)
  local node
  for index = start, stop - 1 do
    node = load_node(flow_key, id, seq, index)
    local r = node.record
    if r.state == WAITING and r.hold == CHILD then
      stop_child(node, family, index - start + 1, rev, now, KEYS[1])
    elseif r.state == WAITING or r.state == READY then
      if r.state == WAITING then redis.call('ZREM', KEYS[2], timer_member(node)) end
      settle(node, KEYS[1], SKIPPED, now, {}, '')
    end
  end
  if more == 1 and node.pending > 0 then
    push_event(KEYS[1], LOOK, id, node.plan, node.pc, seq, rev, node.queue, '')
  end
end

-- The signals that came are those of the turn that begins; those of the turn before go.
local function take_signals(key, pc, name)
  local mine = 'd:' .. pc .. ':' .. name
  local h = redis.call('HMGET', key, 'sn:' .. name, 'st:' .. name, mine)
  local first, last = string.match(h[3] or '0|0', '^(%d+)|(%d+)$')
  for at = first, last - 1, 1000 do
    local gone = {}
    for i = at, math.min(last, at + 1000) - 1 do gone[#gone + 1] = 'sg:' .. name .. ':' .. i end
    redis.call('HDEL', key, unpack(gone))
  end
  local came, taken = h[1] or '0', h[2] or '0'
  redis.call('HSET', key, mine, taken .. '|' .. came, 'st:' .. name, came)
end

-- Forgets steps of the turn before: the first and the last hundred; between them may be the turns of
-- a loop within, which forgot theirs. What trim_turns has to begin with, if there is more.
local function begin_turn(key, seq, turn)
  local pc, again, pairs_, signals, listed, named, most = unpack(turn)
  for i = 1, #signals do take_signals(key, pc, signals[i]) end
  local last = again == 1 and tonumber(redis.call('HGET', key, 'l:' .. pc)) or nil
  local count = again == 1 and tonumber(redis.call('HGET', key, 't:' .. pc) or '0') or 0
  redis.call('HSET', key, 't:' .. pc, count + 1, 'l:' .. pc, seq)
  if not last then return end
  local widths, trim = {}, ''
  for i = 1, #pairs_, 2 do widths[text(pairs_[i])] = pairs_[i + 1] end
  local gone = {}
  for at = last, seq - 1 do
    if at - last < 100 or seq - at <= 100 then
      local step = redis.call('HGET', key, 's:' .. at)
      local width = step and widths[string.match(step, '^(%d+)|')]
      local is_list = width == -1
      if is_list then
        width = tonumber(redis.call('HGET', key, 'w:' .. at) or '0')
        gone[#gone + 1] = 'w:' .. at
      end
      if width then gone[#gone + 1] = 's:' .. at end
      if width and (width > (is_list and listed or named) or #gone + width > most) then
        trim = trim .. at .. ' ' .. text(width) .. '\n'
      elseif width then
        for index = 0, width - 1 do
          gone[#gone + 1] = 'n:' .. at .. '.' .. index
          if is_list then gone[#gone + 1] = 'i:' .. at .. '.' .. index end
        end
      end
    end
  end
  for at = 1, #gone, 1000 do
    redis.call('HDEL', key, unpack(gone, at, math.min(#gone, at + 999)))
  end
  trim = (redis.call('HGET', key, 'trim') or '') .. trim
  if trim == '' then return end
  redis.call('HSET', key, 'trim', trim)
  return string.match(trim, '^[^\n]*')
end

-- A signal that came before the gate was reached is taken at once.
local function wait(key, rev, seq, waiting)
  local id, kind, name, moment, signal = unpack(waiting)
  local from_now = string.match(moment, '^+(%d+)$')
  local due = from_now and text(tonumber(now) + tonumber(from_now)) or moment
  local record = {state = WAITING, token = rev .. '.0', process = '', attempt = 1, crashes = 0,
    queue = name, entry = '', begun = '', hold = kind, ended = due}
  redis.call('HSET', key, 'n:' .. seq .. '.0', format_record(record), 'gate', signal)
  local node = load_node(key, id, seq, 0)
  if due ~= '' then add_timer(KEYS[2], KEYS[1], tonumber(due), timer_member(node)) end
  if kind ~= TIMER_GATE then return end
  local h = redis.call('HMGET', key, 'sn:' .. signal, 'st:' .. signal)
  local taken = tonumber(h[2] or '0')
  if tonumber(h[1] or '0') <= taken then return end
  local buffered = 'sg:' .. signal .. ':' .. taken
  local payload = redis.call('HGET', key, buffered)
  redis.call('HDEL', key, buffered)
  redis.call('HSET', key, 'st:' .. signal, taken + 1)
  pass_gate(node, KEYS[2], KEYS[1], now, payload)
end

local function finish(key, ending)
  local id, status, open_flow, by_status, by_both, channel, ttl, timers = unpack(ending)
  if timers[1] then redis.call('ZREM', KEYS[2], unpack(timers)) end
  release_claims(key, id, KEYS[5], KEYS[1])
  redis.call('PEXPIRE', key, ttl)
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[open_flow], id)
  redis.call('ZADD', KEYS[by_status], now, id)
  redis.call('ZADD', KEYS[by_both], now, id)
  redis.call('PUBLISH', channel, status)
end

-- The number of the last step with an output, as it will be.
local function last_step(key, fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'prev' then return tonumber(fields[i + 1]) end
  end
  return tonumber(redis.call('HGET', key, 'prev') or nil)
end

local function commit(packed, at)
  local flow_index, event, expect, rev, seq, fields, step, streams, page, skip, ending, waiting,
    deadline, page_from, turn, family = unpack(packed)
  local key = KEYS[flow_index]
  local h = redis.call('HMGET', key, 'rev', 'pending', 'page')
  local current = h[1]
  if current ~= expect then
    if current and current ~= rev then return {CONFLICT} end
    acked[#acked + 1] = event
    return {current and OK or GONE}
  end
  local leaves_step = step ~= '' or (ending[1] and ending[2] ~= TERMINATED)
  if leaves_step and h[2] ~= '0' then return {CONFLICT} end
  if page_from >= 0 and tonumber(h[3]) ~= page_from then return {CONFLICT} end
  if family[1] == 'end' and ending[2] == COMPLETED and not family[6][1] then
    local name = long_list(key, last_step(key, fields), family[4])
    if name then return {LONG, name} end
  end
  local inputs = family[1] == 'start' and inputs_of(key, seq, family)
  local n = #fields
  fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'rev', rev, 'moved', now
  n = n + 4
  if step ~= '' then
    fields[n + 1], fields[n + 2] = 's:' .. seq, step .. '|' .. now
    n = n + 2
  end
  if streams[1] then
    local before = step == '' and redis.call('HGET', key, 'pages') or ''
    fields[n + 1], fields[n + 2] = 'pages', before .. append(streams, at)
    n = n + 2
  end
  if ending[1] then fields[n + 1], fields[n + 2] = 'ended', now end
  redis.call('HSET', key, unpack(fields))
  local to_trim = turn[1] and begin_turn(key, seq, turn)
  if waiting[1] then wait(key, rev, seq, waiting) end
  if deadline[1] then
    local due = tonumber(now) + deadline[1]
    redis.call('HSET', key, 'deadline', text(due))
    add_timer(KEYS[2], KEYS[1], due, deadline[2])
  end
  if page[1] then redis.call('XADD', KEYS[1], '*', 'e', cmsgpack.pack(page)) end
  if inputs then start_children(key, rev, seq, now, family, inputs, KEYS[1], KEYS[3], KEYS[4]) end
  if skip[1] then skip_nodes(key, rev, seq, skip, family) end
  if ending[1] then finish(key, ending) end
  if family[1] == 'end' then
    local list = lists_in(family) == 1 and ARGV[at + #streams + 1]
    tell_parent(key, ending[2], family, rev, now, KEYS[1], list)
  end
  acked[#acked + 1] = event
  return {OK, to_trim or nil}
end

-- Items differ in length here, so that this walks by itself instead of for_each.
local replies = {}
local at = 2
while at <= #ARGV do
  local item = cmsgpack.unpack(ARGV[at])
  local ok, answer = pcall(commit, item, at)
  if not ok then
    local reason = type(answer) == 'table' and (answer.err or '') or tostring(answer)
    answer = {ERROR, reason}
  end
  replies[#replies + 1] = answer
  at = at + 1 + #item[8] + lists_in(item[16])
end
local ids = {}
for i = 1, #acked do if acked[i] ~= '' then ids[#ids + 1] = acked[i] end end
drop_entries(KEYS[1], COORDINATORS, ids)
return replies
