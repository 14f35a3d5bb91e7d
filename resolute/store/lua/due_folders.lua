#!lua flags=allow-oom
-- Tells which folders of the storage are to be looked at, the longest due first.
-- KEYS due
-- ARGV common: most
-- RETURNS folder, ...
-- @include common

local most = cmsgpack.unpack(ARGV[1])[1]
return redis.call('ZRANGE', KEYS[1], '-inf', text(now_ms()), 'BYSCORE', 'LIMIT', 0, most)
