#!lua flags=allow-oom
-- Reads dead letters, with no more of their raw bytes than is asked for.
-- KEYS dead
-- ARGV common: first last newest count cut about
--   first, last: ids as XRANGE takes them     newest: 1 for the newest first
--   count: how many are looked at             cut: how many of the raw bytes are wanted
--   about: a text that the raw bytes must hold, or ''
-- RETURNS {id, origin, why, size of the raw bytes, the first of them} for each
-- @include common

local first, last, newest, count, cut, about = unpack(cmsgpack.unpack(ARGV[1]))
local SEARCHED = 65536 -- no entry and no event is longer

local rows
if newest == 1 then
  rows = redis.call('XREVRANGE', KEYS[1], last, first, 'COUNT', count)
else
  rows = redis.call('XRANGE', KEYS[1], first, last, 'COUNT', count)
end
local letters = {}
for _, row in ipairs(rows) do
  local fields = {origin = '', why = '', raw = ''}
  for at = 1, #row[2], 2 do fields[row[2][at]] = row[2][at + 1] end
  local raw = fields.raw
  if about == '' or string.find(string.sub(raw, 1, SEARCHED), about, 1, true) then
    letters[#letters + 1] = {row[1], fields.origin, fields.why, #raw, string.sub(raw, 1, cut)}
  end
end
return letters
