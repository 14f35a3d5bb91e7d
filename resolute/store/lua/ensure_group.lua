#!lua flags=allow-oom
-- Makes the consumer group of a stream; a new one may mean that the stream was lost.
-- KEYS inbox stream
-- ARGV common: group
-- RETURNS {OK} new, and a sweep was asked for | {EXISTS}
-- @include common

local group = cmsgpack.unpack(ARGV[1])[1]
local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], group, '0', 'MKSTREAM')
if made.err then
  if string.find(made.err, 'BUSYGROUP', 1, true) then return {EXISTS} end
  return made
end
push_event(KEYS[1], SWEEP, '', '', 0, 0, '', '', '')
return {OK}
