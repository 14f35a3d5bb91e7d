#!lua flags=allow-oom
-- Takes nodes back that a dead process had, or whose entry or timer was lost.
-- KEYS inbox stats timers +item: flow, stream of the entry, stream to hand out on
-- ARGV common: nonce poison
-- ITEM flow_key from_key to_key flow entry seq index token process queue best_effort key   BLOB error
-- `process` is the dead one ('' for a node nobody claimed); a node that was claimed counts a
-- crash, and the one that reaches `poison` crashes fails with `error`. A waiting node gets its
-- timer again; one that waits for a run, whose hash is then the last key, fails unless that is open.
-- RETURNS {OK | STALE | GONE | SKIP} for each; SKIP: it failed as poison.
-- @include common
-- @include node

local common = cmsgpack.unpack(ARGV[1])
local nonce, poison = common[1], common[2]
local now = now_ms()
local reclaimed = 0

local function fail(node, best_effort, key, blob, stream)
  if best_effort == 1 then
    forget_output(node, key)
  elseif node.undoing == 0 then
    fail_run(node, KEYS[1], blob, nonce)
  end
  local field = node.undoing > 0 and 'ux:' .. node.undoing or 'x:' .. key
  settle(node, KEYS[1], FAILED_NODE, now, {field, blob}, '', stream)
  return {SKIP}
end

local function reclaim(node, item, blob)
  local _, _, to, _, entry, _, _, token, process, queue, best_effort, key = unpack(item)
  local r = node.record
  if r.state == WAITING and r.token == token and r.hold == CHILD then
    local status = redis.call('HGET', KEYS[to], 'status')
    if status == RUNNING or status == FAILING or status == COMPENSATING then return {STALE} end
    return fail(node, best_effort, key, blob)
  end
  if r.state == WAITING and r.token == token then
    local member = timer_member(node)
    local due = is_wait(r) and tonumber(r.ended) or now
    if r.ended ~= '' and not redis.call('ZSCORE', KEYS[3], member) then
      add_timer(KEYS[3], KEYS[1], due, member)
    end
    return {OK}
  end
  local was_claimed = process ~= '' and is_held(node, token, process)
  if not was_claimed and not is_unclaimed(node, token) then return {STALE} end
  if was_claimed and r.entry ~= entry and entry ~= '' then return {STALE} end
  if was_claimed then r.crashes = tonumber(r.crashes) + 1 end
  reclaimed = reclaimed + 1
  if node.status == FAILING then
    settle(node, KEYS[1], SKIPPED, now, {}, '')
  elseif tonumber(r.crashes) >= poison then
    return fail(node, best_effort, key, blob, KEYS[to])
  else
    hand_out(node, KEYS[to], queue)
  end
  return {OK}
end

local replies = for_each(2, 2, function(packed, at)
  local item = cmsgpack.unpack(packed)
  local flow_key, from, _, flow, entry, seq, index = unpack(item)
  local node = load_node(KEYS[flow_key], flow, seq, index)
  -- The old entry goes first: in a stream that was deleted the new one may get the same id.
  if entry ~= '' then drop_entries(KEYS[from], WORKERS, {entry}) end
  return node and reclaim(node, item, ARGV[at + 1]) or {GONE}
end)

if reclaimed > 0 then redis.call('HINCRBY', KEYS[2], 'reclaimed', reclaimed) end
return replies
