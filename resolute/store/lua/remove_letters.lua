#!lua flags=allow-oom
-- Takes dead letters away; to be retried, their raw bytes go back into the stream they came from.
-- KEYS dead done +item: stream
-- ARGV common: retried ttl   (retried: 1 or 0; ttl of `done` in ms)
-- ITEM letter stream_key
-- RETURNS {OK | GONE} for each
-- `done` is this call's own: sent again after a lost reply, it answers as the first time.
-- @include common

local retried, ttl = unpack(cmsgpack.unpack(ARGV[1]))

return for_each(2, 1, function(packed)
  local letter, stream = unpack(cmsgpack.unpack(packed))
  local found = redis.call('XRANGE', KEYS[1], letter, letter)[1]
  if not found then
    return {redis.call('HEXISTS', KEYS[2], letter) == 1 and OK or GONE}
  end
  redis.call('HSET', KEYS[2], letter, 1)
  redis.call('PEXPIRE', KEYS[2], ttl)
  if retried == 1 then
    local raw = ''
    for at = 1, #found[2], 2 do
      if found[2][at] == 'raw' then raw = found[2][at + 1] end
    end
    redis.call('XADD', KEYS[stream], '*', 'e', raw)
  end
  redis.call('XDEL', KEYS[1], letter)
  return {OK}
end)
