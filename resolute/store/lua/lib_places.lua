-- The places of one concurrency limit. `held` has who runs: <node>|<token> = <process>|<round>;
-- `line` who waits, in the order of asking: <node> by its ticket (us); `woken` whom of them a place
-- is kept for, by the time (ms) at which somebody was told to wake it. A node is named
-- <flow>|<seq>|<index>|<queue>, so that whoever is told can find it.

local MOST = 500 -- told to wake by one call

-- Says who is to be woken: the first in line, as many as there are free places. Who was woken
-- `lapse` ms ago and has not come is told once more and keeps no place: where nobody serves its
-- queue, the others do not wait for it. It has its ticket, and comes before them when it asks.
local function wake_next(held, line, woken, n, now, lapse)
  local told = {OK}
  if redis.call('EXISTS', line) == 0 then return told end
  local late = redis.call('ZRANGE', woken, '-inf', now - lapse, 'BYSCORE', 'LIMIT', 0, MOST)
  if #late < MOST then -- of a clock that went back
    for _, node in ipairs(redis.call('ZRANGE', woken, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0,
        MOST - #late)) do
      late[#late + 1] = node
    end
  end
  for _, node in ipairs(late) do
    redis.call('ZREM', line, node)
    redis.call('ZREM', woken, node)
    told[#told + 1] = node
  end
  local free = math.min(n - redis.call('HLEN', held), MOST)
  if free > 0 then
    for _, node in ipairs(redis.call('ZRANGE', line, 0, free - 1)) do
      if redis.call('ZADD', woken, 'NX', now, node) == 1 then told[#told + 1] = node end
    end
  end
  return told
end

-- Keys that nobody touches for `ttl` ms are forgotten; one that lasts longer is left as it is.
local function keep(keys, ttl)
  for i = 1, #keys do
    local left = redis.call('PTTL', keys[i])
    if left ~= -2 and left < ttl then redis.call('PEXPIRE', keys[i], ttl) end
  end
end
