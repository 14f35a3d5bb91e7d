#!lua flags=allow-oom
-- Forgets some more of what the turns of a loop before this one wrote of steps that are as wide as a
-- list: that is too much to go with the transition that begins a turn. `trim` has a line for each such
-- step, 'seq width'.
-- KEYS +item: flow
-- ARGV common: (none)
-- ITEM flow_key first most
--   first: the first line, as it was told; where it is another one by now, nothing is done
--   most: so many nodes at once, of as many lines
-- No fence: these are steps that no run comes back to.
-- RETURNS {OK, the first line that is left or ''} for each
-- @include common

return for_each(2, 1, function(packed)
  local flow_key, expected, most = unpack(cmsgpack.unpack(packed))
  local key = KEYS[flow_key]
  local first, rest = string.match(redis.call('HGET', key, 'trim') or '', '^([^\n]*)\n(.*)$')
  if not first or first ~= expected then return {OK, first or ''} end
  local gone, left = {}, most
  while first and left > 0 do
    local seq, width = string.match(first, '^(%d+) (%d+)$')
    local from = math.max(0, width - left)
    for index = from, width - 1 do
      gone[#gone + 1] = 'n:' .. seq .. '.' .. index
      gone[#gone + 1] = 'i:' .. seq .. '.' .. index
    end
    left = left - (width - from)
    if from > 0 then
      first = seq .. ' ' .. text(from)
    else
      first, rest = string.match(rest, '^([^\n]*)\n(.*)$')
    end
  end
  if gone[1] then redis.call('HDEL', key, unpack(gone)) end
  if first then
    redis.call('HSET', key, 'trim', first .. '\n' .. rest)
  else
    redis.call('HDEL', key, 'trim')
  end
  return {OK, first or ''}
end)
