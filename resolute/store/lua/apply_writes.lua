#!lua flags=allow-oom
-- Runs plain commands of one slot that must work on a full server too: registering, letting go,
-- waking, burying. Each may be sent twice.
-- KEYS +item: the key of each command
-- ARGV common: for each command how many arguments follow, its name among them; then those
-- RETURNS {OK}
-- @include common

local at = 2
for i, count in ipairs(cmsgpack.unpack(ARGV[1])) do
  redis.call(ARGV[at], KEYS[i], unpack(ARGV, at + 1, at + count - 1))
  at = at + count
end
return {OK}
