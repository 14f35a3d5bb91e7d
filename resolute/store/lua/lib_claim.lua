-- Unique keys: which open run has one, and which begins when that has ended. In the hash of claims
-- <key> is the id of the run that has it, and `next <key>` is <id>|<rev>|<queue>|<flow> of the one
-- that waits for its end. A run says in `unique` which key it has or waits for. A key of debounced
-- starts, in `debounce`, is that of a run that has not begun yet.

local function waiting_for(claims, field)
  local value = redis.call('HGET', claims, 'next ' .. field)
  if not value then return nil end
  return string.match(value, '^([^|]*)|([^|]*)|([^|]*)|(.*)$')
end

-- The run `id` has the key no longer: who waits for that has it, and begins. `claims` says whether
-- `id` has it at all: a run that waits for the key may end before it has it.
local function pass_on(claims, field, id, inbox)
  local heir, rev, queue, flow = waiting_for(claims, field)
  if redis.call('HGET', claims, field) ~= id then
    if heir == id then redis.call('HDEL', claims, 'next ' .. field) end
    return
  end
  if not heir then
    redis.call('HDEL', claims, field)
    return
  end
  redis.call('HSET', claims, field, heir)
  redis.call('HDEL', claims, 'next ' .. field)
  push_event(inbox, START, heir, '', 0, 0, rev, queue, flow)
end

-- A debounced run has begun, or will never: the next start with its key is another run.
local function end_debounce(claims, field, id)
  if field and redis.call('HGET', claims, field) == id then redis.call('HDEL', claims, field) end
end

-- A run has ended, so that it has no keys any more.
local function release_claims(key, id, claims, inbox)
  local h = redis.call('HMGET', key, 'unique', 'debounce')
  if h[1] then pass_on(claims, h[1], id, inbox) end
  end_debounce(claims, h[2], id)
end

-- Whether the run that has a key by the claims is open, and has it by its own hash.
local function still_has(key, field)
  local h = redis.call('HMGET', key, 'status', 'unique')
  return h[2] == field and (h[1] == RUNNING or h[1] == FAILING or h[1] == COMPENSATING)
end

-- Gives a unique key to the run `id`; or the answer why not; or nil and the run that it is to wait
-- for, which is told to stop.
-- `terms` are {key, 'existing' | 'fail' | 'replace', period ms, place in KEYS of who was started in
-- it, and of who has the key and who waits for it, as the caller saw that: id, place, id, place}.
-- {TAKEN, id, id, id}: who has it, who waits for it, who was started within the period. Where that
-- is not what the caller saw, it is to look again: only with the hashes can it be judged.
local function claim_key(terms, claims, inbox, id, rev, queue, flow, nonce)
  local field, mode, period, recent_key, seen, seen_key, next_seen, next_key = unpack(terms)
  local holder = redis.call('HGET', claims, field) or ''
  local waiting = holder ~= '' and waiting_for(claims, field) or ''
  if holder ~= seen or waiting ~= next_seen then return {TAKEN, holder, waiting, ''} end
  if holder ~= '' and not still_has(KEYS[seen_key], field) then  -- its hash was deleted by hand
    pass_on(claims, field, holder, inbox)
    if waiting ~= '' then return {TAKEN, waiting, '', ''} end
    holder = ''
  end
  if holder ~= '' then
    if mode ~= 'replace' then return {TAKEN, holder, waiting, ''} end
    local old, old_key = holder, KEYS[seen_key]
    if waiting ~= '' then old, old_key = waiting, KEYS[next_key] end
    stop_run(old_key, old, inbox, 0, cmsgpack.pack({'Cancelled', 'replaced by run ' .. id}), nonce)
    redis.call('HSET', claims, 'next ' .. field, table.concat({id, rev, queue, flow}, '|'))
    return nil, holder
  end
  local recent = recent_key > 0 and redis.call('GET', KEYS[recent_key])
  if recent then return {TAKEN, '', '', recent} end
  redis.call('HSET', claims, field, id)
  if period > 0 then redis.call('SET', KEYS[recent_key], id, 'PX', period) end
end
