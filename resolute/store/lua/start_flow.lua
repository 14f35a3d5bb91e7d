#!lua
-- Starts runs; the same id with the same flow and input is the same run.
-- KEYS inbox open timers folders claims +item: flow index holder waiting recent
-- ARGV common: retention fresh
-- ITEM flow_key index_key id flow queue nonce tick looked delay at folder sum claim   BLOB input
-- `delay` (ms from now) or `at` (Unix time in ms) above 0: it begins then, by a timer.
-- `tick` is the cron tick in ms that this run is for (0: none); one older than the retention (ms)
-- may have run and be deleted already, so it is refused. One that is younger may be too, where
-- its flow keeps only so many runs: who starts it must have looked at the cursors, at `looked`,
-- less than `fresh` (ms) ago. That time is of the node that has the cursors, whose clock may be
-- before ours, but not by more than `fresh`.
-- An input in the storage is a stub, in the folder `folder`, and `sum` is the SHA-1 of the value
-- (else '' both): by that it is the same as another, wherever that is. A folder that was given up
-- since it was opened is STALE.
-- `claim` are the terms of a unique key (lib_claim), or {}. A run that replaces another one begins
-- when that has ended, in the script that ends it.
-- RETURNS {OK | EXISTS | CONFLICT | OLD | STALE} for each, or {TAKEN, id, id, id}: who has the unique
-- key, who waits for it, and who was started within the period; on STALE the caller looks again
-- @include common
-- @include run
-- @include claim

local common = cmsgpack.unpack(ARGV[1])
local now = now_ms()

-- Whether the run that is there has this input.
local function is_same(there, sum, input)
  local value, its_sum = there[2], there[3]
  if value == input then return true end
  if sum == '' and not its_sum then return false end
  its_sum = its_sum or redis.sha1hex(value)
  return its_sum == (sum ~= '' and sum or redis.sha1hex(input))
end

return for_each(2, 2, function(packed, at)
  local item = cmsgpack.unpack(packed)
  local flow_key, id = KEYS[item[1]], item[3]
  local input = ARGV[at + 1]
  local there = redis.call('HMGET', flow_key, 'flow', 'input', 'sum')
  if there[1] then
    if there[1] == item[4] and is_same(there, item[12], input) then return {EXISTS} end
    return {CONFLICT}
  end
  local tick, looked = item[7], item[8]
  if tick > 0 and tick < now - common[1] then return {OLD} end
  if tick > 0 and (looked < now - common[2] or looked > now + common[2]) then return {STALE} end
  local folder, sum = item[11], item[12]
  if folder ~= '' and not redis.call('ZSCORE', KEYS[4], folder .. ' ' .. id) then return {STALE} end
  local rev, claim, replaced = '0-' .. item[6], item[13], nil
  if claim[1] then
    local refused
    refused, replaced = claim_key(claim, KEYS[5], KEYS[1], id, rev, item[5], item[4], item[6])
    if refused then return refused end
  end
  create_run(flow_key, id, item[4], item[5], rev, input, now, KEYS[2], KEYS[item[2]])
  if folder ~= '' then redis.call('HSET', flow_key, 'folder', folder, 'sum', sum) end
  if claim[1] then redis.call('HSET', flow_key, 'unique', claim[1]) end
  if replaced then
    redis.call('HSET', flow_key, 'replaces', replaced)
    return {OK}
  end
  local delay, due = item[9], item[10]
  if delay > 0 then due = now + delay end
  if due > now then
    begin_later(flow_key, id, due, KEYS[3], KEYS[1])
  else
    push_event(KEYS[1], START, id, '', 0, 0, rev, item[5], item[4])
  end
  return {OK}
end)
