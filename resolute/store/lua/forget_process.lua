#!lua flags=allow-oom
-- Forgets a process whose lease is over and that has nothing any more, but for its name: a claim of
-- it may be left that nobody found. One that beats is left as it is: the server lost the second in
-- which its lease was ended.
-- KEYS processes beats departed version cancels
-- ARGV common: process most ttl   (how many names are kept, and for how many ms after the last)
-- RETURNS {OK | CONFLICT}
-- @include common

local process, most, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local processes, beats, departed, version, cancels = unpack(KEYS)
local beat = redis.call('HGET', beats, process)
if beat and beat ~= '-1' then return {CONFLICT} end

if redis.call('HDEL', processes, process) + redis.call('HDEL', beats, process) > 0 then
  redis.call('INCRBY', version, 1)
end
redis.call('DEL', cancels)
-- Last: where somebody damaged it, the others are forgotten all the same.
redis.call('ZADD', departed, 'NX', now_ms(), process)
redis.call('ZREMRANGEBYRANK', departed, 0, -most - 1)
redis.call('PEXPIRE', departed, ttl)
return {OK}
