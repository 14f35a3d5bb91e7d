-- How a run begins and how it is told to stop, by a client or by the run that started it.

-- The hash of a run that no coordinator has seen yet, and its places in the indexes of open ones.
local function create_run(key, id, flow, queue, rev, input, now, open, open_flow)
  redis.call('HSET', key, 'status', RUNNING, 'flow', flow, 'plan', '', 'pc', 0, 'seq', 0,
    'rev', rev, 'pending', 0, 'queue', queue, 'input', input, 'started', now, 'moved', now)
  redis.call('ZADD', open, now, id)
  redis.call('ZADD', open_flow, now, id)
end

-- Lets a run begin at `due` (Unix time in ms), by a timer.
local function begin_later(key, id, due, timers, inbox)
  redis.call('HSET', key, 'due', text(due))
  add_timer(timers, inbox, due, table.concat({TIMER_START, '', id, 0, 0, ''}, '|'))
end

-- Cancels a run, or terminates it (terminate is 1), with the encoded `error`. EXISTS: it has ended,
-- or is failing already. The same nonce again answers as the first time.
local function stop_run(key, id, inbox, terminate, error, nonce)
  local h = redis.call('HMGET', key, 'status', 'rev', 'plan', 'pc', 'seq', 'queue', 'terminate',
    'cancel')
  local status = h[1]
  if not status then return GONE end
  local fields
  if terminate == 1 then
    if h[7] == nonce then return OK end
    if status ~= RUNNING and status ~= FAILING and status ~= COMPENSATING then return EXISTS end
    if h[7] then return OK end
    -- `failing` too: what completes from now on must not bring the next step about. `skip` counts
    -- the runs it started that are told.
    local stopped = status == RUNNING and FAILING or status
    fields = {'terminate', nonce, 'status', stopped, 'error', error, 'skip', 0}
  else
    if status ~= RUNNING then return h[8] and OK or EXISTS end
    fields = {'cancel', 1, 'status', FAILING, 'error', error}
  end
  local rev = next_rev(h[2], nonce)
  redis.call('HSET', key, 'rev', rev, unpack(fields))
  push_event(inbox, LOOK, id, h[3], h[4], h[5], rev, h[6], '')
  return OK
end
