#!lua flags=allow-oom
-- Gives places of one concurrency limit back, and takes nodes that want none any more out of its
-- line; says who is to be woken.
-- KEYS held line woken
-- ARGV common: n lapse ttl   (the last two in ms)
-- ITEM node token   (token: under which it has a place; '': it is to leave the line)
-- RETURNS {OK, node to wake...}, then for each {OK}
-- @include common
-- @include places

local n, lapse, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local held, line, woken = KEYS[1], KEYS[2], KEYS[3]

local replies = for_each(2, 1, function(packed)
  local node, token = unpack(cmsgpack.unpack(packed))
  if token == '' then
    redis.call('ZREM', line, node)
    redis.call('ZREM', woken, node)
  else
    redis.call('HDEL', held, node .. '|' .. token)
  end
  return {OK}
end)

local told = wake_next(held, line, woken, n, now_ms(), lapse)
keep(KEYS, ttl)
table.insert(replies, 1, told)
return replies
