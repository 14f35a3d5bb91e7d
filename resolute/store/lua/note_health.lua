#!lua flags=allow-oom
-- Writes the entries of processes anew, with what each found to be ill. One that is not registered
-- any more, since its lease is over, must not come back: nobody would take its entry away.
-- KEYS processes
-- ARGV common: (none)
-- ITEM process   BLOB info
-- RETURNS {OK | GONE} for each
-- @include common

return for_each(2, 2, function(packed, at)
  local process = unpack(cmsgpack.unpack(packed))
  if redis.call('HEXISTS', KEYS[1], process) == 0 then return {GONE} end
  redis.call('HSET', KEYS[1], process, ARGV[at + 1])
  return {OK}
end)
