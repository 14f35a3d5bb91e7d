#!lua flags=allow-oom
-- Closes a token bucket until a time to come: what an API asked for with Retry-After. It is as if
-- the bucket's time stood still: all times that were given out move by as much, in their order.
-- KEYS bucket
-- ARGV common: interval burst pause ttl   (us, tokens, us, ms)
-- RETURNS {OK, time us}
-- @include common
-- @include bucket

local interval, burst, pause, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local b = load_bucket(KEYS[1], now_us())
local opens = b.now + pause
-- Who is told at the same time by several nodes waits once, not once for each.
local moved = math.max(0, opens - math.max(b.now, b.opens))
if b.line > b.now then b.line = b.line + moved end
b.opens = math.max(b.opens, opens)
b.tat = math.max(b.tat + moved, b.opens + interval * (burst - 1))
b.shift = b.shift + moved
save_bucket(KEYS[1], b, ttl)
return {OK, text(b.opens)}
