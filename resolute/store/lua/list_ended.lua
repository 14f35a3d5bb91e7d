#!lua flags=allow-oom
-- Reads from indexes of ended runs how many they hold, and which ended long enough ago.
-- KEYS +item: index
-- ARGV common: limit
-- ITEM index_key age   (ms since the end, by the time of Redis)
-- RETURNS {count, id, time of its end (ms), ...} for each, the oldest first, at most `limit` runs
-- Count and runs are of one moment: who deletes what is beyond a number relies on it.
-- @include common

local limit = cmsgpack.unpack(ARGV[1])[1]
local now = now_ms()

return for_each(2, 1, function(packed)
  local index, age = unpack(cmsgpack.unpack(packed))
  local rows = redis.call('ZRANGE', KEYS[index], '-inf', text(now - age), 'BYSCORE', 'LIMIT', 0,
    limit, 'WITHSCORES')
  table.insert(rows, 1, redis.call('ZCARD', KEYS[index]))
  return rows
end)
