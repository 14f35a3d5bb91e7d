#!lua flags=allow-oom
-- Cancels runs (what completed is compensated) or terminates them (nothing more is run).
-- KEYS inbox +item: flow
-- ARGV common: nonce
-- ITEM flow_key flow terminate   BLOB error
-- RETURNS {OK | EXISTS | GONE} for each; EXISTS: it has ended, or is failing already. A resend
-- answers as the first time, also where the run has ended of it by then.
-- @include common

local nonce = cmsgpack.unpack(ARGV[1])[1]

return for_each(2, 2, function(packed, at)
  local flow_key, flow, terminate = unpack(cmsgpack.unpack(packed))
  local key = KEYS[flow_key]
  local h = redis.call('HMGET', key, 'status', 'rev', 'plan', 'pc', 'seq', 'queue', 'terminate',
    'cancel')
  local status = h[1]
  if not status then return {GONE} end
  local fields
  if terminate == 1 then
    if h[7] == nonce then return {OK} end
    if status ~= RUNNING and status ~= FAILING and status ~= COMPENSATING then return {EXISTS} end
    if h[7] then return {OK} end
    -- `failing` too: what completes from now on must not bring the next step about.
    local stopped = status == RUNNING and FAILING or status
    fields = {'terminate', nonce, 'status', stopped, 'error', ARGV[at + 1]}
  else
    if status ~= RUNNING then return {h[8] and OK or EXISTS} end
    fields = {'cancel', 1, 'status', FAILING, 'error', ARGV[at + 1]}
  end
  local rev = next_rev(h[2], nonce)
  redis.call('HSET', key, 'rev', rev, unpack(fields))
  push_event(KEYS[1], LOOK, flow, h[3], h[4], h[5], rev, h[6], '')
  return {OK}
end)
