#!lua flags=allow-oom
-- Closes a token bucket until a time to come: what an API asked for with Retry-After.
-- KEYS bucket
-- ARGV common: interval burst horizon pause ttl   (us, tokens, us, us, ms)
-- Reservations made before are void: their epoch is over. Who waits in line keeps the place.
-- RETURNS {OK, time us}
-- @include common
-- @include bucket

local interval, burst, horizon, pause, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local b = load_bucket(KEYS[1], now_us())
local opens = b.now + pause
-- When the last of those who wait would have had its turn: newcomers go behind it still.
local last = math.max(b.tat - interval * burst, b.line > b.now and b.line + horizon / 2 or 0)
b.tat = math.max(b.tat, opens + interval * (burst - 1))
b.line = math.max(b.line, opens, opens + (last - b.now) - horizon / 2)
b.epoch = b.epoch + 1
save_bucket(KEYS[1], b, ttl)
return {OK, text(opens)}
