#!lua flags=allow-oom
-- Removes a consumer that has nothing pending; deleting it otherwise would destroy those entries.
-- KEYS stream
-- ARGV common: group consumer
-- RETURNS {OK | CONFLICT}
-- @include common

local group, consumer = unpack(cmsgpack.unpack(ARGV[1]))
if redis.call('EXISTS', KEYS[1]) == 0 then return {OK} end
local pending = redis.pcall('XPENDING', KEYS[1], group, '-', '+', 1, consumer)
if pending.err then return {OK} end
if #pending > 0 then return {CONFLICT} end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, consumer)
return {OK}
