-- A token bucket by GCRA. `tat` is the time (us) at which it would be full again, `line` the last
-- come-back time given out, `opens` until when a push-back closed it, `shift` by how much all
-- push-backs together have moved the times that were given out, `seen` when it was last used.

-- A bucket ahead of the clock, which went backwards, is clamped.
local function load_bucket(key, now)
  local h = redis.call('HMGET', key, 'tat', 'line', 'opens', 'shift', 'seen')
  local b = {now = now, tat = tonumber(h[1] or '0'), line = tonumber(h[2] or '0'),
    opens = tonumber(h[3] or '0'), shift = tonumber(h[4] or '0')}
  local ahead = tonumber(h[5] or '0') - now
  if ahead > 0 then b.tat, b.line, b.opens = b.tat - ahead, b.line - ahead, b.opens - ahead end
  return b
end

-- A full bucket that nobody waits for is forgotten after `ttl` ms.
local function save_bucket(key, b, ttl)
  redis.call('HSET', key, 'tat', text(b.tat), 'line', text(b.line), 'opens', text(b.opens),
    'shift', text(b.shift), 'seen', text(b.now))
  local busy = math.max(0, math.max(b.tat, b.line) - b.now)
  redis.call('PEXPIRE', key, math.ceil(busy / 1000) + ttl)
end
