-- What every script uses: time, the inbox, the batch.

local function now_us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Event: kind, flow, plan, pc, seq, rev, queue, arg.
local function push_event(inbox, kind, flow, plan, pc, seq, rev, queue, arg)
  redis.call('XADD', inbox, '*', 'e',
    cmsgpack.pack({kind, flow, plan, tonumber(pc), tonumber(seq), rev, queue, arg}))
end

-- A whole number as text; tostring would write a large one as 1.7e+12.
local function text(number)
  return string.format('%.0f', number)
end

local function push_wake(inbox)
  push_event(inbox, WAKE, '', '', 0, 0, '', '', '')
end

-- A timer before the earliest one wakes a coordinator, which blocks until the earliest it knows.
local function add_timer(timers, inbox, due, member)
  local first = redis.call('ZRANGE', timers, 0, 0, 'WITHSCORES')
  redis.call('ZADD', timers, due, member)
  if not first[2] or due < tonumber(first[2]) then
    push_wake(inbox)
  end
end

-- The next rev: one more, with the caller's nonce, so that no two timelines share one.
local function next_rev(rev, nonce)
  return (tonumber(string.match(rev, '^%d+')) + 1) .. '-' .. nonce
end

-- Calls one(packed item, its place) for each item, `width` arguments apart, from ARGV[from] on. An
-- error is the item's own: its answer is ERROR with the text, and the others are done all the same.
local function for_each(from, width, one)
  local replies, count = {}, 0
  for at = from, #ARGV, width do
    local ok, answer = pcall(one, ARGV[at], at)
    if not ok then
      local text = type(answer) == 'table' and (answer.err or '') or tostring(answer)
      answer = {ERROR, text}
    end
    count = count + 1
    replies[count] = answer
  end
  return replies
end

-- XACK and XDEL, at most 1,000 ids a call.
local function drop_entries(stream, group, ids)
  for at = 1, #ids, 1000 do
    local stop = math.min(#ids, at + 999)
    redis.call('XACK', stream, group, unpack(ids, at, stop))
    redis.call('XDEL', stream, unpack(ids, at, stop))
  end
end
