#!lua
-- Starts an ended run anew, as another run, with the outputs from before the step to go on from.
-- KEYS inbox open source target index folders due timers claims +item: holder waiting
-- ARGV common: source_id id nonce drop fields deadline timer claim
-- `drop` are the hash fields that the new run must not have, `fields` those (flat, with values)
-- that say where it goes on. `deadline` is in ms from now, with its timer, 0 for none.
-- `claim` are the terms of the source's unique key (lib_claim), which the new run has again, or {}.
-- RETURNS {OK | EXISTS | GONE | CONFLICT}; a resend answers as the first time; CONFLICT: the source
-- has not ended. {TAKEN, id, id, id}: another run has its unique key, as start_flow says it.
-- What is in the storage is not copied: both runs have the folder.
-- @include common
-- @include run
-- @include claim

local source_id, id, nonce, drop, fields, deadline, timer, claim = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_ms()
local there = redis.call('HGET', KEYS[4], 'made_by')
if there == nonce then return {OK} end
if there or redis.call('EXISTS', KEYS[4]) == 1 then return {EXISTS} end
local h = redis.call('HMGET', KEYS[3], 'status', 'queue', 'plan', 'flow', 'folder')
local status = h[1]
if not status then return {GONE} end
if status == RUNNING or status == FAILING or status == COMPENSATING then return {CONFLICT} end
local rev = '0-' .. nonce
if claim[1] then
  local refused = claim_key(claim, KEYS[9], KEYS[1], id, rev, h[2], h[4], nonce)
  if refused then return refused end
end
redis.call('COPY', KEYS[3], KEYS[4])
redis.call('PERSIST', KEYS[4])
for at = 1, #drop, 1000 do
  redis.call('HDEL', KEYS[4], unpack(drop, at, math.min(#drop, at + 999)))
end
-- What the source cost is not spent again.
for unit in string.gmatch(redis.call('HGET', KEYS[4], 'costs') or '', '[^|]+') do
  redis.call('HDEL', KEYS[4], 'costs', 'cost:' .. unit)
end
redis.call('HSET', KEYS[4], 'status', RUNNING, 'rev', rev, 'retry_of', source_id, 'made_by', nonce,
  'started', now, 'moved', now, 'pending', 0, unpack(fields))
local folder = h[5]
if folder then
  redis.call('ZADD', KEYS[6], 0, folder .. ' ' .. id)
  redis.call('ZADD', KEYS[7], 'NX', now, folder)
end
if deadline > 0 then
  redis.call('HSET', KEYS[4], 'deadline', text(now + deadline))
  add_timer(KEYS[8], KEYS[1], now + deadline, timer)
end
redis.call('ZADD', KEYS[2], now, id)
redis.call('ZADD', KEYS[5], now, id)
push_event(KEYS[1], LOOK, id, h[3], 0, 0, rev, h[2], '')
return {OK}
