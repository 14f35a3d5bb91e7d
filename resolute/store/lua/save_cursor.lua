#!lua flags=allow-oom
-- Saves cursors, which runs of any partition move. An older run does not move back what a newer one
-- saved, nor an earlier step of a run what a later one did: who was cut off may come back.
-- KEYS cursors
-- ARGV common: (none)
-- ITEM field started run seq   BLOB value
-- `started` is when the run began, in ms.
-- RETURNS {OK | STALE} for each
-- @include common

return for_each(2, 2, function(packed, at)
  local field, started, run, seq = unpack(cmsgpack.unpack(packed))
  local by = redis.call('HGET', KEYS[1], field .. '#') or '0|0|'
  local since, step, who = string.match(by, '^(%d+)|(%d+)|(.*)$')
  since, step = tonumber(since), tonumber(step)
  if since > started or (who == run and step > seq) then return {STALE} end
  redis.call('HSET', KEYS[1], field, ARGV[at + 1], field .. '#',
    text(started) .. '|' .. seq .. '|' .. run)
  return {OK}
end)
