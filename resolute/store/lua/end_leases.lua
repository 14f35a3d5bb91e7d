#!lua flags=allow-oom
-- Ends the leases of processes whose beat is still the one that was seen for too long. One that beat
-- meanwhile is alive; one whose lease is ended hears so at its next beat, before it begins anything.
-- KEYS beats
-- ARGV common: (none)
-- ITEM process count   (count: of the beat that was seen, '' for none)
-- RETURNS {OK | CONFLICT} for each
-- @include common

return for_each(2, 1, function(packed)
  local process, count = unpack(cmsgpack.unpack(packed))
  local beat = redis.call('HGET', KEYS[1], process)
  if beat == '-1' then return {OK} end
  local found = beat and string.match(beat, '^%d+') or '' -- one that cannot be read is none
  if found ~= count then return {CONFLICT} end
  redis.call('HSET', KEYS[1], process, -1)
  return {OK}
end)
