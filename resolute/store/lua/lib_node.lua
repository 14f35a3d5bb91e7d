-- A node's record in the flow hash, the fence that guards it, and the ways it can change.
-- Record: state|token|process|attempt|crashes|queue|entry|begun|hold|ended, under n:<seq>.<index>.
-- The first three are the fence: who holds it, under which hand-out. `ended` is last, so that a
-- record is settled by changing its ends. A gate and a sleep are nodes that wait from the first and
-- that no process claims: `hold` says which, `queue` is the name of the step.

local RECORD = '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$'

local function format_record(r)
  return r.state .. '|' .. r.token .. '|' .. r.process .. '|' .. r.attempt .. '|' .. r.crashes ..
    '|' .. r.queue .. '|' .. r.entry .. '|' .. r.begun .. '|' .. r.hold .. '|' .. r.ended
end

local function parse_record(value)
  local r = {}
  r.state, r.token, r.process, r.attempt, r.crashes, r.queue, r.entry, r.begun, r.hold, r.ended =
    string.match(value, RECORD)
  return r.state and r or nil
end

-- The run's header and the node's record; without a record the node is ready with the step's token.
-- nil where there is no such run.
local function load_node(flow_key, flow, seq, index)
  local h = redis.call('HMGET', flow_key, 'status', 'rev', 'seq', 'token', 'pending', 'plan', 'pc',
    'queue', 'undoing', 'n:' .. seq .. '.' .. index, 'window')
  if not h[1] then return nil end
  local node = {
    key = flow_key, flow = flow, seq = seq, index = index,
    status = h[1], rev = h[2], current = tonumber(h[3]), pending = tonumber(h[5]), plan = h[6],
    pc = tonumber(h[7]), queue = h[8], undoing = tonumber(h[9] or '0'),
    field = 'n:' .. seq .. '.' .. index, window = h[11],
  }
  local r
  if h[10] then
    r = parse_record(h[10])
    if not r then error('record of ' .. node.field .. ' is damaged') end
  else
    r = {state = READY, token = h[4], attempt = '1', crashes = '0', process = '', queue = '',
      entry = '', begun = '', ended = '', hold = '', implied = true}
  end
  node.record = r
  node.open = node.status == RUNNING or node.status == FAILING or node.status == COMPENSATING
  return node
end

-- Whether `process` holds the node under `token`: nothing else may end it.
local function is_held(node, token, process)
  local r = node.record
  return node.open and node.current == node.seq and r.state == NODE_RUNNING and r.token == token
    and r.process == process
end

-- Whether the node is handed out under `token` and nobody has claimed it.
local function is_unclaimed(node, token)
  local r = node.record
  return node.open and node.current == node.seq and r.state == READY and r.token == token
end

-- An error where `process` claimed this very entry, but under another token: no hand-out does that,
-- so the record was damaged, and nobody but its holder can notice.
local function refuse_garbled(record, token, process, entry)
  local r = record
  if r.state == NODE_RUNNING and r.process == process and r.entry == entry and r.token ~= token then
    error('the token of a record is damaged')
  end
end

local function is_wait(record)
  return record.hold == TIMER_GATE or record.hold == TIMER_SLEEP
end

-- Whether it waits for a place of a concurrency limit: see admission.py for what a `hold` is.
local function is_in_line(record)
  return string.find(record.hold, '+', 1, true) ~= nil
end

-- The timer of a node that waits.
local function timer_member(node)
  local r = node.record
  local kind = is_wait(r) and r.hold or TIMER_NODE
  return table.concat({kind, r.queue, node.flow, node.seq, node.index, r.token}, '|')
end

local function next_token(token)
  local base, count = string.match(token, '^(.*)%.(%d+)$')
  return base .. '.' .. (tonumber(count) + 1)
end

-- Of a name such as queue^high@plan the priority: that stream has nodes of every one, so that the
-- entry has to say it. nil for other names.
local function told_priority(name)
  return string.match(name, '%^(%l+)@')
end

-- A node of a windowed step was settled: the next one follows it, in the stream that served it.
-- `window` is <seq>|<how many at a time>|<width>.
local function refill(key, flow, window, seq, pending, stream, queue)
  local of, most, width = string.match(window, '^(%d+)|(%d+)|(%d+)$')
  if tonumber(of) ~= tonumber(seq) then return end
  local h = redis.call('HMGET', key, 'status', 'page', 'token', 'plan', 'pc')
  local page = tonumber(h[2])
  width = tonumber(width)
  if h[1] ~= RUNNING or page >= width or page - (width - pending) >= tonumber(most) then return end
  local entry = redis.call('XADD', stream, '*', 'e',
    cmsgpack.pack({flow, h[4], tonumber(h[5]), tonumber(seq), page, h[3], 1, 0, 0,
      told_priority(queue)}))
  redis.call('HSET', key, 'page', page + 1, 'n:' .. seq .. '.' .. page,
    READY .. '|' .. h[3] .. '||1|0|' .. queue .. '|' .. entry .. '|||')
end

-- How far a node had come goes, with the pages that it had kept.
local function drop_progress(run, seq, index, pages)
  local field = 'p:' .. seq .. '.' .. index
  redis.call('HDEL', run, field)
  for first = 0, pages - 1, 1000 do
    local names = {}
    for n = first, math.min(pages, first + 1000) - 1 do names[#names + 1] = field .. '.' .. n end
    redis.call('HDEL', run, unpack(names))
  end
end

-- The run goes on without the output of a node that may fail, and did: not with the one that it may
-- have from a former turn of a loop.
local function forget_output(node, key)
  if node.undoing > 0 then return end
  redis.call('HDEL', node.key, 'o:' .. key)
  local progress = redis.call('HGET', node.key, 'p:' .. node.seq .. '.' .. node.index)
  if not progress then return end
  -- [the pages, ...]; what a heartbeat told, [0, anything], may be nothing that cmsgpack reads.
  local pages = string.byte(progress, 2) ~= 0 and cmsgpack.unpack(progress)[1] or 0
  drop_progress(node.key, node.seq, node.index, pages)
end

-- Writes the record as settled with more fields beside it, counts it down, and says so at 0.
-- `stream` is the one that served it, where another node may follow it.
local function settle(node, inbox, state, now, fields, arg, stream)
  local r = node.record
  r.state, r.ended, r.hold = state, text(now), ''
  node.pending = node.pending - 1
  if node.pending < 0 then error('pending of ' .. node.flow .. ' would fall below 0') end
  redis.call('HSET', node.key, node.field, format_record(r), 'pending', node.pending,
    unpack(fields))
  if node.pending == 0 then
    local kind = node.status == RUNNING and SETTLED or LOOK
    push_event(inbox, kind, node.flow, node.plan, node.pc, node.seq, node.rev, node.queue, arg)
  elseif node.window and stream then
    refill(node.key, node.flow, node.window, node.seq, node.pending, stream, r.queue)
  end
end

-- Puts the node into `stream`, which serves `queue`, under the token that it has.
local function release(node, stream, queue)
  local r = node.record
  r.state, r.process, r.queue, r.begun, r.ended = READY, '', queue, '', ''
  r.entry = redis.call('XADD', stream, '*', 'e', cmsgpack.pack({node.flow, node.plan, node.pc,
    node.seq, node.index, r.token, tonumber(r.attempt), tonumber(r.crashes), node.undoing,
    told_priority(queue)}))
  redis.call('HSET', node.key, node.field, format_record(r))
end

-- Hands the node out again at once: a new token, a new entry. What a limiter told it stays with a
-- node that nobody claimed; `hold` is what one says now.
local function hand_out(node, stream, queue, hold)
  local r = node.record
  r.token = next_token(r.token)
  if hold then r.hold = hold elseif r.state ~= READY then r.hold = '' end
  release(node, stream, queue)
end

-- Hands the node out later: a new token, a timer.
local function defer(node, timers, inbox, queue, due, hold)
  local r = node.record
  r.token = next_token(r.token)
  r.state, r.process, r.queue, r.entry, r.begun, r.hold = WAITING, '', queue, '', '', hold
  r.ended = text(due)
  redis.call('HSET', node.key, node.field, format_record(r))
  add_timer(timers, inbox, due, timer_member(node))
end

-- Adds what an attempt cost to the sums of its run: <unit>|<millionths>|<unit>|... The sums are
-- Redis's 64-bit numbers, since those of Lua are floats; one that would overflow stays as it is.
local function add_costs(key, costs)
  for unit, micros in string.gmatch(costs, '([^|]+)|(%d+)') do
    if redis.call('HSETNX', key, 'cost:' .. unit, '0') == 1 then
      local units = redis.call('HGET', key, 'costs')
      redis.call('HSET', key, 'costs', units and units .. '|' .. unit or unit)
    end
    redis.pcall('HINCRBY', key, 'cost:' .. unit, micros)
  end
end

-- The run fails with `blob` as its error, if it was running; a coordinator looks at it.
local function fail_run(node, inbox, blob, nonce)
  if node.status ~= RUNNING then return end
  node.status = FAILING
  node.rev = next_rev(node.rev, nonce)
  redis.call('HSET', node.key, 'status', FAILING, 'rev', node.rev, 'error', blob)
  push_event(inbox, LOOK, node.flow, node.plan, node.pc, node.seq, node.rev, node.queue, '')
end

-- The gate is passed: the signal's payload is its output.
local function pass_gate(node, timers, inbox, now, payload)
  redis.call('ZREM', timers, timer_member(node))
  settle(node, inbox, COMPLETED_NODE, now, {'o:' .. node.record.queue, payload}, '')
end
