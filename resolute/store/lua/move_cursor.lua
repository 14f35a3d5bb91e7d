#!lua flags=allow-oom
-- Moves the cursor of a schedule on to a tick, never back: who stalled before its write may come
-- when a later tick was started, and that one would be started again.
-- KEYS ticks
-- ARGV common: field tick   (tick in ms)
-- RETURNS {OK}
-- @include common

local field, tick = unpack(cmsgpack.unpack(ARGV[1]))
local there = tonumber(redis.call('HGET', KEYS[1], field) or '')
if not there or there < tick then redis.call('HSET', KEYS[1], field, text(tick)) end
return {OK}
