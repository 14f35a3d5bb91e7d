#!lua flags=allow-oom
-- Empties a token bucket until a time to come: what an API asked for with Retry-After.
-- KEYS bucket
-- ARGV common: interval burst pause ttl   (us, tokens, us, ms)
-- Reservations made before are void: their epoch is over.
-- RETURNS {OK, time us}
-- @include common

local interval, burst, pause, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_us()
local h = redis.call('HMGET', KEYS[1], 'tat', 'epoch')
local full = now + pause + interval * (burst - 1)
local tat = math.max(tonumber(h[1] or '0'), full)
redis.call('HSET', KEYS[1], 'tat', string.format('%.0f', tat), 'epoch',
  tonumber(h[2] or '0') + 1, 'line', string.format('%.0f', now + pause), 'seen',
  string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((tat - now) / 1000) + ttl)
return {OK, string.format('%.0f', now + pause)}
