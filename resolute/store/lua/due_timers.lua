#!lua flags=allow-oom
-- Reads which timers are due by the time of Redis, and when the next one is.
-- KEYS timers
-- ARGV common: limit
-- RETURNS {ms until the next one that is not due, or -1 for none, member...}
-- @include common

local limit = cmsgpack.unpack(ARGV[1])[1]
local now = text(now_ms())
local members = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
local following = redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, 1,
  'WITHSCORES')
local wait = following[2] and math.ceil(tonumber(following[2]) - tonumber(now)) or -1
if #members == limit then wait = 0 end
table.insert(members, 1, wait)
return members
