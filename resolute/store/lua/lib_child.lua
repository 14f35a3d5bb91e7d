-- Runs that other runs start. In the parent a node waits for each, whose record has CHILD as its
-- `hold`; the child's hash says in `child_of` which: <parent>|<seq>|<index>|<1: it may fail>.
-- `family` is what a commit does of this: {'start', parent, flow, queue, step, forgives, index key
-- of the flow, first, {key, id, ...}}, {'stop', terminate, error type, error text, {key, id, ...}}
-- or {'end', parent key, error text, {pc, kind, keys...} of each step that may have been the last,
-- bytes that a result which is put together may have, {bytes, is it there} of a list that the caller
-- has put together, or {}}; it is not there where it has too many.

-- A list of more items is put together by the caller: 30,000 take 34 ms of the server.
local LONGEST = 100

-- The head of a MessagePack array or map.
local function head(fix, wide, n)
  if n < 16 then return string.char(fix + n) end
  if n < 65536 then return string.char(wide, math.floor(n / 256), n % 256) end
  return string.char(wide + 1, math.floor(n / 16777216), math.floor(n / 65536) % 256,
    math.floor(n / 256) % 256, n % 256)
end

local NIL = string.char(0xc0)

-- A stub stands for a value in the storage (resolute/model/references.py): of a list or a map
-- with stubs in it the whole is one, so that nobody need look inside of values.
local function is_stub(value)
  local first = string.byte(value, 1)
  return (first == 0xc8 and string.byte(value, 4) == 0x52)
    or (first == 0xc9 and string.byte(value, 6) == 0x53)
end

local function join(parts, has_stubs)
  local data = table.concat(parts)
  if not has_stubs then return data end
  local n = #data
  return string.char(0xc9, math.floor(n / 16777216) % 256, math.floor(n / 65536) % 256,
    math.floor(n / 256) % 256, n % 256, 0x53) .. data
end

local function list_of(key, name, count)
  local parts, has_stubs = {head(0x90, 0xdc, count)}, false
  local before = 'o:' .. name .. '['
  for at = 0, count - 1, 1000 do
    local names, most = {}, math.min(count - at, 1000)
    for i = 1, most do names[i] = before .. (at + i - 1) .. ']' end
    local values = redis.call('HMGET', key, unpack(names))
    for i = 1, most do
      local value = values[i]
      if not value then
        values[i] = NIL
      elseif not has_stubs then
        has_stubs = is_stub(value)
      end
    end
    parts[#parts + 1] = table.concat(values)
  end
  return join(parts, has_stubs)
end

local function map_of(key, names, from)
  local parts, count, has_stubs = {''}, 0, false
  for i = from, #names do
    local value = redis.call('HGET', key, 'o:' .. names[i])
    if value then
      count = count + 1
      parts[#parts + 1] = cmsgpack.pack(names[i])
      parts[#parts + 1] = value
      has_stubs = has_stubs or is_stub(value)
    end
  end
  parts[1] = head(0x80, 0xde, count)
  return join(parts, has_stubs)
end

-- What a completed run returned, encoded: what its last step did, or its input where none did. And
-- whether it was put together here, so that nobody has looked at its size.
local function result_of(key, results)
  local last = redis.call('HGET', key, 'prev')
  if not last then return redis.call('HGET', key, 'input') or NIL end
  for i = 1, #results do
    local pc, kind, name = unpack(results[i], 1, 3)
    if pc == tonumber(last) then
      if kind == 'map' then return map_of(key, results[i], 3), true end
      if kind == 'one' then return redis.call('HGET', key, 'o:' .. name) or NIL end
      return list_of(key, name, tonumber(redis.call('HGET', key, 'o:' .. name) or '0')), true
    end
  end
  error('no step ' .. last .. ' that a result can come from')
end

-- The inputs of the runs that a commit is to start; an error where one is not stored.
local function inputs_of(key, seq, family)
  local names, step, first = {}, family[5], family[8]
  for i = 1, #family[9] / 2 do names[i] = 'i:' .. seq .. '.' .. (first + i - 1) end
  local inputs = redis.call('HMGET', key, unpack(names))
  for i = 1, #names do
    if not inputs[i] then error('item ' .. names[i] .. ' of ' .. step .. ' is not stored') end
  end
  return inputs
end

-- A run of that id may be there from a former run of the parent's id: it is replaced.
local function start_children(key, rev, seq, now, family, inputs, inbox, open, folders)
  local _, parent, flow, queue, step, forgives, open_flow, first, children = unpack(family)
  local child_rev = '0-' .. string.match(rev, '%-(.*)$')
  local records = {}
  local folder = redis.call('HGET', key, 'folder')  -- its inputs may be in there
  for i = 1, #inputs do
    local index, child_key, child = first + i - 1, KEYS[children[2 * i - 1]], children[2 * i]
    redis.call('UNLINK', child_key)
    create_run(child_key, child, flow, queue, child_rev, inputs[i], now, open, KEYS[open_flow])
    if folder then
      redis.call('HSET', child_key, 'folder', folder)
      redis.call('ZADD', folders, 0, folder .. ' ' .. child)
    end
    redis.call('HSET', child_key, 'child_of', table.concat({parent, seq, index, forgives}, '|'))
    push_event(inbox, START, child, '', 0, 0, child_rev, queue, flow)
    records[#records + 1] = 'n:' .. seq .. '.' .. index
    records[#records + 1] = format_record({state = WAITING, token = rev .. '.0', process = '',
      attempt = 1, crashes = 0, queue = step, entry = '', begun = now, hold = CHILD, ended = ''})
  end
  redis.call('HSET', key, unpack(records))
end

-- Tells the run that a node waits for to stop. One that is not open any more settles nothing.
local function stop_child(node, family, place, rev, now, inbox)
  local _, terminate, kind, message, children = unpack(family)
  local nonce = string.match(rev, '%-(.*)$')
  local error = cmsgpack.pack({kind, message})
  local child_key, child = KEYS[children[2 * place - 1]], children[2 * place]
  local code = stop_run(child_key, child, inbox, terminate, error, nonce)
  if code ~= GONE or terminate == 1 then return end
  settle(node, inbox, SKIPPED, now, {}, '')
end

-- 1048576 as 1,048,576.
local function grouped(number)
  local turned = string.gsub(string.reverse(text(number)), '(%d%d%d)', '%1,')
  return (string.gsub(string.reverse(turned), '^,', ''))
end

-- The key of the list that a completed run returned, if it is too long to be put together here;
-- `last` is the number of its last step.
local function long_list(key, last, results)
  for i = 1, #results do
    local pc, kind, name = unpack(results[i], 1, 3)
    if kind == 'list' and pc == last then
      local count = tonumber(redis.call('HGET', key, 'o:' .. name) or '0')
      return count > LONGEST and name
    end
  end
end

-- How many lists that the caller has put together come with this.
local function lists_in(family)
  return family[1] == 'end' and family[6][2] or 0
end

-- What a completed run returned, or why it cannot be that of a node, encoded. The size of a stub is
-- not looked at: what it stands for is in the storage, and a list of stubs has no other place.
local function result_or_error(key, family, list, name)
  local _, _, _, results, limit, made = unpack(family)
  local result, size = list, made[1]
  if not size then
    local is_made
    result, is_made = result_of(key, results)
    size = #result
    if is_made and size > limit and not is_stub(result) then result = nil end
  end
  if result then return result end
  return nil, cmsgpack.pack({'PayloadTooLarge', 'payload of ' .. grouped(size)
    .. ' bytes is over the limit of ' .. grouped(limit) .. ' bytes', '', name})
end

-- A child has ended: the node that waits for it is settled, and another one may follow.
local function tell_parent(key, status, family, rev, now, inbox, list)
  local _, parent_key, message = unpack(family)
  local parent, seq, index, forgives = string.match(redis.call('HGET', key, 'child_of') or '',
    '^(.*)|(%d+)|(%d+)|(%d)$')
  if not parent then return end
  seq = tonumber(seq)
  local node = load_node(KEYS[parent_key], parent, seq, index)
  if not node or not node.open or node.current ~= seq then return end
  local r = node.record
  if r.state ~= WAITING or r.hold ~= CHILD then return end
  local name = r.queue .. '[' .. index .. ']'
  local result, error
  if status == COMPLETED then
    result, error = result_or_error(key, family, list, name)
  else
    error = cmsgpack.pack({'ChildFailed', message, '', name})
  end
  if not error then
    settle(node, inbox, COMPLETED_NODE, now, {'o:' .. name, result}, '')
  else
    if forgives == '1' then
      forget_output(node, name)
    else
      fail_run(node, inbox, error, string.match(rev, '%-(.*)$'))
    end
    settle(node, inbox, FAILED_NODE, now, {'x:' .. name, error}, '')
  end
  local of, _, width = string.match(node.window or '', '^(%d+)|(%d+)|(%d+)$')
  if node.status == RUNNING and tonumber(of) == seq and node.pending > 0
      and tonumber(redis.call('HGET', node.key, 'page')) < tonumber(width) then
    push_event(inbox, LOOK, parent, node.plan, node.pc, seq, node.rev, node.queue, '')
  end
end
