#!lua
-- Starts a run that begins when it was quiet for a while; while it has not begun, further starts
-- with its key are it: its input is the last one's, and its time is put off.
-- KEYS inbox open timers claims +item: flow index pending call
-- ARGV common: keep   (ms for which a call's own id is known)
-- ITEM flow_key index_key pending_place call_place id flow queue nonce field pending wait most sender number   BLOB input
-- `pending` is the run that has the key as the caller saw it, '' for none. It begins `wait` (ms)
-- from now, but no later than `most` (ms, 0: no matter) after its first start. `sender` counts its
-- calls in `number`: one that is sent again, or was overtaken by a later one of its sender, changes
-- nothing. `pending_place` is its place in KEYS, and `call_place` that of a call with an own id, which
-- may be made anew hours later; 0 for none.
-- RETURNS {OK, id} for each: the run that it went into | {TAKEN, id}: look again, that run has the key
-- @include common
-- @include run
-- @include claim

local keep = cmsgpack.unpack(ARGV[1])[1]
local now = now_ms()

return for_each(2, 2, function(packed, at)
  local flow_key, index_key, pending_place, call_place, id, flow, queue, nonce, field, pending, wait,
    most, sender, number = unpack(cmsgpack.unpack(packed))
  local claims, input = KEYS[4], ARGV[at + 1]
  local before = call_place > 0 and redis.call('GET', KEYS[call_place])
  if before then return {OK, before} end
  if redis.call('EXISTS', KEYS[flow_key]) == 1 then return {OK, id} end
  local h = {}
  if pending ~= '' then
    h = redis.call('HMGET', KEYS[pending_place], 'status', 'due', 'started', 'call:' .. sender)
    if h[4] and tonumber(h[4]) >= number then return {OK, pending} end
  end
  local holder = redis.call('HGET', claims, field) or ''
  if holder ~= pending then return {TAKEN, holder} end
  local key, due = KEYS[pending_place], now + wait
  -- One that was cancelled, or whose hash was deleted by hand, takes no more.
  if h[1] == RUNNING and h[2] then
    if most > 0 then due = math.min(due, tonumber(h[3]) + most) end
    redis.call('HSET', key, 'input', input, 'queue', queue, 'moved', now)
    id = pending
  else
    key = KEYS[flow_key]
    create_run(key, id, flow, queue, '0-' .. nonce, input, now, KEYS[2], KEYS[index_key])
    redis.call('HSET', key, 'debounce', field)
    redis.call('HSET', claims, field, id)
  end
  redis.call('HSET', key, 'call:' .. sender, number)
  begin_later(key, id, due, KEYS[3], KEYS[1])
  if call_place > 0 then redis.call('SET', KEYS[call_place], id, 'PX', keep) end
  return {OK, id}
end)
