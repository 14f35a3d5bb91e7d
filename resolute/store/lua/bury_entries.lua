#!lua flags=allow-oom
-- Moves entries that nobody can use from their stream to the dead letters, as they are.
-- KEYS dead stream
-- ARGV common: group origin most   (most: how many letters are kept, about)
-- ITEM entry why
-- RETURNS {OK} for each; an entry that is not there any more leaves no letter
-- The raw bytes are those of field `e`; of an entry without it all its fields, as MessagePack.
-- @include common

local group, origin, most = unpack(cmsgpack.unpack(ARGV[1]))

local function raw_of(fields)
  for at = 1, #fields, 2 do
    if fields[at] == 'e' then return fields[at + 1] end
  end
  return cmsgpack.pack(fields)
end

return for_each(2, 1, function(packed)
  local entry, why = unpack(cmsgpack.unpack(packed))
  local found = redis.call('XRANGE', KEYS[2], entry, entry)[1]
  if found then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', most, '*', 'origin', origin,
      'raw', raw_of(found[2]), 'why', why)
  end
  drop_entries(KEYS[2], group, {entry})
  return {OK}
end)
