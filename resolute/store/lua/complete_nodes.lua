#!lua flags=allow-oom
-- Commits the results of nodes that a process holds. The one that settles a step says so.
-- KEYS inbox stats stream +item: flow
-- ARGV common: process
-- ITEM flow_key flow entry seq index token plan pc key undo arg costs pages   BLOB output undo_input
-- `seq`, `index` and `pc` are text, as the hash has them. `undo` is 1 for a node with a
-- compensation, whose input is then `undo_input`; `arg` goes into the event (a predicate's answer).
-- `costs` is what the attempt cost, see add_costs. `pages` were kept (turn_page), and are in the output; 0
-- where only progress was (keep_progress), -1 where nothing.
-- RETURNS {OK | STALE | GONE} for each; a resend by the holder answers as the first time.
-- @include common
-- @include node

local process = cmsgpack.unpack(ARGV[1])[1]
local now = text(now_ms())
local dropped, stale, done = {}, 0, 0

-- The fence refused: either the same call did it before, or the node is another's now.
local function refuse(status, record, held, token, entry)
  local found = record and parse_record(record)
  if found then refuse_garbled(found, token, process, entry) end
  dropped[#dropped + 1] = entry
  local settled = COMPLETED_NODE .. string.sub(held, #NODE_RUNNING + 1)
  if record and string.sub(record, 1, #settled) == settled then return {OK} end
  stale = stale + 1
  return {status and STALE or GONE}
end

local replies = for_each(2, 3, function(packed, at)
  local flow_key, flow, entry, seq, index, token, plan, pc, key, undo, arg, costs, pages =
    unpack(cmsgpack.unpack(packed))
  local run, field = KEYS[flow_key], 'n:' .. seq .. '.' .. index
  local h = redis.call('HMGET', run, 'status', 'pending', field, 'rev', 'queue', 'window')
  local status, record = h[1], h[3]
  local held = NODE_RUNNING .. '|' .. token .. '|' .. process .. '|'
  if not record or string.sub(record, 1, #held) ~= held
      or (status ~= RUNNING and status ~= FAILING and status ~= COMPENSATING) then
    return refuse(status, record, held, token, entry)
  end
  local pending = tonumber(h[2]) - 1
  if pending < 0 then error('pending of ' .. flow .. ' would fall below 0') end
  record = COMPLETED_NODE .. string.sub(record, #NODE_RUNNING + 1) .. now
  local output = 'o:' .. key
  if status == COMPENSATING then output = 'uo:' .. redis.call('HGET', run, 'undoing') end
  if undo == 1 then
    local count = tonumber(redis.call('HGET', run, 'undos') or '0') + 1
    redis.call('HSET', run, field, record, 'pending', pending, output, ARGV[at + 1],
      'undos', count, 'u:' .. count, pc .. '|' .. index .. '|' .. seq, 'ui:' .. count, ARGV[at + 2])
  else
    redis.call('HSET', run, field, record, 'pending', pending, output, ARGV[at + 1])
  end
  if costs ~= '' then add_costs(run, costs) end
  if pages >= 0 then drop_progress(run, seq, index, pages) end
  if pending == 0 then
    push_event(KEYS[1], status == RUNNING and SETTLED or LOOK, flow, plan, pc, seq, h[4], h[5], arg)
  elseif h[6] then
    refill(run, flow, h[6], seq, pending, KEYS[3], parse_record(record).queue)
  end
  dropped[#dropped + 1] = entry
  done = done + 1
  return {OK}
end)

drop_entries(KEYS[3], WORKERS, dropped)
if done > 0 then redis.call('HINCRBY', KEYS[2], 'nodes_completed', done) end
if stale > 0 then redis.call('HINCRBY', KEYS[2], 'stale_attempts', stale) end
return replies
