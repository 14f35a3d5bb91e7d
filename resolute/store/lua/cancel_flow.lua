#!lua flags=allow-oom
-- Cancels runs (what completed is compensated) or terminates them (nothing more is run).
-- KEYS inbox +item: flow
-- ARGV common: nonce
-- ITEM flow_key flow terminate   BLOB error
-- RETURNS {OK | EXISTS | GONE} for each; EXISTS: it has ended, or is failing already. A resend
-- answers as the first time, also where the run has ended of it by then.
-- @include common
-- @include run

local nonce = cmsgpack.unpack(ARGV[1])[1]

return for_each(2, 2, function(packed, at)
  local flow_key, flow, terminate = unpack(cmsgpack.unpack(packed))
  return {stop_run(KEYS[flow_key], flow, KEYS[1], terminate, ARGV[at + 1], nonce)}
end)
