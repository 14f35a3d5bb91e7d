#!lua flags=allow-oom
-- Reserves start times in one token bucket for a batch of nodes, by GCRA (ITU-T I.371; in Redis
-- first by Brandur Leach's redis-cell).
-- KEYS bucket
-- ARGV common: interval burst horizon ttl   (us, tokens, us, ms)
-- ITEM kind time shift
--   kind 0: a newcomer; 1: comes back from the line, where it was told `time`; 2: confirms the
--   reservation `time`; 3: gives it back. `shift` is the bucket's when the time was given: what
--   push-backs moved since then is added.
-- RETURNS now (us), shift, then for each {code, time us}
--   OK: start at that time; SKIP: come back at that time, first come first served
-- @include common
-- @include bucket

local interval, burst, horizon, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_us()
local b = load_bucket(KEYS[1], now)
local capacity = interval * burst
local LATE = 100000 -- us after its time until which a reservation holds

-- A reservation is undone only if nothing was reserved after it.
local function give_back(time)
  if time > now and math.abs(b.tat - capacity - time) < 1 then b.tat = b.tat - interval end
  return {OK, '0'}
end

local replies = for_each(2, 1, function(packed)
  local kind, time, shift = unpack(cmsgpack.unpack(packed))
  if kind > 0 then time = time + b.shift - shift end
  if kind == 3 then return give_back(time) end
  if kind == 2 and now - time <= LATE then return {OK, text(math.max(time, b.opens))} end
  -- A push-back moved its place in the line: it comes back then, as it would have.
  if kind == 1 and b.shift ~= shift and time > now then return {SKIP, text(time)} end
  local tat = math.max(b.tat, now) + interval
  local start = math.max(now, tat - capacity)
  if start - now > horizon or (kind == 0 and b.line > now) then
    -- Behind those who wait: they come back an interval apart, half a horizon before their turn.
    b.line = math.max(b.line > now and b.line + interval or now, start - horizon / 2)
    return {SKIP, text(b.line)}
  end
  b.tat = tat
  return {OK, text(start)}
end)

save_bucket(KEYS[1], b, ttl)
table.insert(replies, 1, text(b.shift))
table.insert(replies, 1, text(now))
return replies
