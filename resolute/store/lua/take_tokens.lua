#!lua flags=allow-oom
-- Reserves start times in one token bucket for a batch of nodes, by GCRA: `tat` is the time at
-- which the bucket would be full again. The idea: ITU-T I.371, and Brandur's redis-cell.
-- KEYS bucket
-- ARGV common: interval burst horizon ttl   (us, tokens, us, ms)
-- ITEM kind time epoch
--   kind 0: a newcomer; 1: comes back from the line at its time; 2: confirms the reservation
--   `time` made in `epoch`; 3: gives it back
-- RETURNS now (us), epoch, then for each {code, time us}
--   OK: start at that time; SKIP: come back at that time, first come first served
-- A bucket ahead of the clock (which went backwards) is clamped.
-- @include common

local interval, burst, horizon, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_us()
local h = redis.call('HMGET', KEYS[1], 'tat', 'line', 'epoch', 'seen')
local tat, line, epoch = tonumber(h[1] or '0'), tonumber(h[2] or '0'), tonumber(h[3] or '0')
local seen = tonumber(h[4] or '0')
if seen > now then
  tat, line = tat - (seen - now), line - (seen - now)
end
local capacity = interval * burst
local LATE, EARLY = 100000, 50000

local function reserve()
  tat = math.max(tat, now) + interval
  return math.max(now, tat - capacity)
end

local replies = for_each(2, 1, function(packed)
  local kind, time, made = unpack(cmsgpack.unpack(packed))
  if kind == 3 then
    if made == epoch and math.abs(tat - capacity - time) < 1 and time > now then
      tat = tat - interval
    end
    return {OK, '0'}
  end
  if kind == 2 and made == epoch and now - time <= LATE then
    return {OK, text(math.max(now, time))}
  end
  local start = math.max(now, math.max(tat, now) + interval - capacity)
  if start - now > horizon or (kind == 0 and line > now) then
    -- Behind those who wait: they come back one interval apart, half a horizon before their turn.
    line = math.max(line, math.max(now, start - horizon / 2)) + interval
    return {SKIP, text(line)}
  end
  return {OK, text(reserve())}
end)

redis.call('HSET', KEYS[1], 'tat', text(tat), 'line', text(line), 'epoch', text(epoch), 'seen',
  text(now))
redis.call('PEXPIRE', KEYS[1], math.max(ttl, math.ceil((math.max(tat, line) - now) / 1000) + ttl))
table.insert(replies, 1, text(epoch))
table.insert(replies, 1, text(now))
return replies
