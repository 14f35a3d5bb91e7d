#!lua flags=allow-oom
-- Takes places of one concurrency limit for a batch of nodes, first come, first served.
-- KEYS held line woken
-- ARGV common: process round n lapse ttl   (the last two in ms)
-- ITEM node token ticket   (ticket: that of an earlier answer, '0' for a newcomer)
-- RETURNS {OK, node to wake...}, then for each {OK, ticket} | {SKIP, ticket, how many are before it}
-- Who has a place is told so again. Who gets none is in line, once, and leaves it by getting one.
-- @include common
-- @include places

local process, round, n, lapse, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local held, line, woken = KEYS[1], KEYS[2], KEYS[3]
local now = now_us()

-- Its ticket, and how many are before it. The clock may go back: a newcomer's is the last all the same.
local function place_in_line(node, ticket)
  local mine = redis.call('ZSCORE', line, node)
  if mine then return tonumber(mine), redis.call('ZRANK', line, node) end
  if ticket > 0 then return ticket, redis.call('ZCOUNT', line, '-inf', '(' .. text(ticket)) end
  local last = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')
  return math.max(now, last[2] and tonumber(last[2]) + 1 or 0), redis.call('ZCARD', line)
end

local replies = for_each(2, 1, function(packed)
  local node, token, given = unpack(cmsgpack.unpack(packed))
  local field = node .. '|' .. token
  local ticket, before = place_in_line(node, tonumber(given))
  if redis.call('HEXISTS', held, field) == 1 then return {OK, text(ticket)} end
  redis.call('ZREM', woken, node)
  if before < n - redis.call('HLEN', held) then
    redis.call('HSET', held, field, process .. '|' .. round)
    redis.call('ZREM', line, node)
    return {OK, text(ticket)}
  end
  redis.call('ZADD', line, 'NX', text(ticket), node)
  return {SKIP, text(ticket), before}
end)

local told = wake_next(held, line, woken, n, math.floor(now / 1000), lapse)
keep(KEYS, ttl)
table.insert(replies, 1, told)
return replies
