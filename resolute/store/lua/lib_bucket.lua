-- A token bucket by GCRA: `tat` is the time (us) at which it would be full again, `line` the last
-- come-back time given out, `again` the last one given to those who waited when it was pushed back,
-- `epoch` counts the push-backs, `seen` is the latest time it was used.

-- A bucket ahead of the clock, which went backwards, is clamped.
local function load_bucket(key, now)
  local h = redis.call('HMGET', key, 'tat', 'line', 'epoch', 'seen', 'again')
  local b = {now = now, tat = tonumber(h[1] or '0'), line = tonumber(h[2] or '0'),
    epoch = tonumber(h[3] or '0'), again = tonumber(h[5] or '0')}
  local ahead = tonumber(h[4] or '0') - now
  if ahead > 0 then b.tat, b.line, b.again = b.tat - ahead, b.line - ahead, b.again - ahead end
  return b
end

-- A full bucket that nobody waits for is forgotten after `ttl` ms.
local function save_bucket(key, b, ttl)
  redis.call('HSET', key, 'tat', text(b.tat), 'line', text(b.line), 'epoch', text(b.epoch),
    'seen', text(b.now), 'again', text(b.again))
  local busy = math.max(0, math.max(b.tat, b.line) - b.now)
  redis.call('PEXPIRE', key, math.ceil(busy / 1000) + ttl)
end
