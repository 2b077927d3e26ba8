-- Reserve in every limit at once, or in none, by the server's own clock.
--
-- KEYS: counters (hash), leases (sorted set), reservations (hash), ledger (stream), alerts (stream); all of one team,
--       so of one Cluster slot. counting.lua stands before this script.
-- ARGV: id, mode, lease in ms, field of the caller's sequence, the highest that it has seen, incarnation seen ('' for
--       none), then for each limit: counter of
--       the current window, counter of the next one, start of the current, the instant between the two, end of the
--       next, limit, amount to hold, by how much the request may exceed that, charge if abandoned (<= amount),
--       1 where the limit refuses, 0 where it only watches, thresholds in per cent ('50,80').
-- Modes: new     a request's first reservation; the same call again finds its hold
--        revise  the same request, with other amounts or limits: what it holds is replaced, or stays as it was
--        force   as revise, and nothing refuses: an answer is already longer than was expected
-- Answer: {'admitted' | 'refused', now, sequence, incarnation, then for each limit: 0 or 1 (current or next window),
--         and used, held and credit, all without this request}
--       | {'stale', now}: the caller's windows are not those of this moment; nothing was changed
--       | {'closed', now}: this id was settled already, or there is nothing to force
--       | {'lost', now}: the server has forgotten what the caller has seen; nothing was changed: see restore.lua
--
-- A record is its state (o open, a abandoned, c closed), then a line "counter TAB amount TAB charge TAB beyond" for
-- each limit. The keys never expire: a server that evicts what expires (volatile-*) must not lose a counter.

local RECLAIM_AHEAD, RECLAIM_WHEN_SHORT, RECLAIM_ROUNDS = 20, 200, 10
local SWEEP_FIELDS = 500
local ABANDONED_KEPT_MS = 24 * 60 * 60 * 1000
local FIRST, STRIDE = 7, 11
local LINE = '([^\t\n]+)\t(%d+)\t(%d+)\t(%d+)'

-- Lua's numbers are doubles: above 2^53 they are no longer exact. So amounts are compared as two halves of nine digits
-- and the rest, each far below 2^53.
local function halves(text)
  if not text or string.byte(text) == 45 then return 0, 0 end -- missing, or "-…" after keys were deleted by hand
  local length = #text
  if length <= 9 then return 0, tonumber(text) end
  return tonumber(string.sub(text, 1, length - 9)), tonumber(string.sub(text, length - 8))
end

local function fits(used, held, amount, limit, credit)
  local used_high, used_low = halves(used)
  local held_high, held_low = halves(held)
  local amount_high, amount_low = halves(amount)
  local limit_high, limit_low = halves(limit)
  local credit_high, credit_low = halves(credit)
  local high = used_high + held_high + amount_high - limit_high - credit_high
  local low = used_low + held_low + amount_low - limit_low - credit_low
  return high * 1000000000 + low <= 0
end

-- After such a charge nobody may ever be let in, and settle. Of a limit that this call does not name, whoever asks for
-- that one next tells it.
local function tell_thresholds(used_now)
  for i = FIRST, #ARGV, STRIDE do
    local limit = limit_of(ARGV[i])
    for counter, used in pairs(used_now) do
      if limit_of(counter) == limit then alert(counter, used, ARGV[i + 5], ARGV[i + 10]) end
    end
  end
end

-- A reservation whose lease ended belongs to a sidecar that is gone: its hold goes, what it surely sent is charged.
-- The record stays for a while, so that a late settle can charge the difference.
local function reclaim(count)
  local used_now
  local ids = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now_text, 'LIMIT', 0, count)
  for _, id in ipairs(ids) do
    local record = redis.call('HGET', RESERVATIONS, id)
    if record and string.sub(record, 1, 1) == 'o' then
      local charges = {}
      used_now = used_now or {}
      for counter, amount, charge, beyond in string.gmatch(record, LINE) do
        add(counter, '|held', '-' .. amount)
        add(counter, '|beyond', '-' .. beyond)
        used_now[counter] = add(counter, '|used', charge) or used_now[counter]
        if charge ~= '0' then charges[#charges + 1] = counter .. '\t' .. charge end
      end
      redis.call('HSET', RESERVATIONS, id, 'a' .. string.sub(record, 2))
      redis.call('ZADD', LEASES, string.format('%.0f', now + ABANDONED_KEPT_MS), id)
      redis.call('XADD', LEDGER, 'MAXLEN', '~', LEDGER_ENTRIES, '*', 'id', id, 'at_ms', now_text,
        'source', 'abandoned', 'charges', table.concat(charges, '\n'))
    else
      redis.call('HDEL', RESERVATIONS, id)
      redis.call('ZREM', LEASES, id)
    end
  end
  if used_now then tell_thresholds(used_now) end
  return #ids
end

-- The first reservation of a window takes away the counters of windows that are over and hold nothing.
local function sweep()
  local flat, values, past = redis.call('HGETALL', COUNTERS), {}, {}
  for i = 1, #flat, 2 do values[flat[i]] = flat[i + 1] end
  for field in pairs(values) do
    local counter, ended = string.match(field, '^(.*|(%d+))|%a+$')
    if counter and tonumber(ended) <= now and #past < SWEEP_FIELDS then
      local held = values[counter .. '|held']
      if not held or held == '0' or string.byte(held) == 45 then past[#past + 1] = field end
    end
  end
  if #past > 0 then redis.call('HDEL', COUNTERS, unpack(past)) end
end

local id, mode, sequence_field, seen_incarnation = ARGV[1], ARGV[2], ARGV[4], ARGV[6]
local known = redis.call('HGET', RESERVATIONS, id)
if known and string.sub(known, 1, 1) ~= 'o' or mode == 'force' and not known then return {'closed', now_text} end

-- What it holds already stays in its windows; lines are found by limit, unit and period.
local lines = {}
if known then
  for counter, amount, charge, beyond in string.gmatch(known, LINE) do
    lines[string.match(counter, '^(.*)|%d+|%d+$')] = {counter, amount, beyond}
  end
end

local counters, indexes, fields = {}, {}, {sequence_field, '#incarnation'}
for i = FIRST, #ARGV, STRIDE do
  local line = known and lines[string.match(ARGV[i], '^(.*)|%d+|%d+$')]
  local index = 0
  if line then
    index = line[1] == ARGV[i + 1] and 1 or 0
  elseif now < tonumber(ARGV[i + 2]) or now >= tonumber(ARGV[i + 4]) then
    return {'stale', now_text}
  elseif now >= tonumber(ARGV[i + 3]) then
    index = 1
  end
  local counter = line and line[1] or ARGV[i + index]
  counters[#counters + 1], indexes[#indexes + 1] = counter, index
  fields[#fields + 1] = counter .. '|used'
  fields[#fields + 1] = counter .. '|held'
  fields[#fields + 1] = counter .. '|credit'
end

local values = redis.call('HMGET', COUNTERS, unpack(fields))
local sequence, incarnation = values[1] or '0', values[2]
if tonumber(sequence) < tonumber(ARGV[5]) or (seen_incarnation ~= '' and seen_incarnation ~= incarnation) then
  return {'lost', now_text}
end
if not incarnation then
  incarnation = id
  redis.call('HSET', COUNTERS, '#incarnation', id)
end

-- Whoever speaks is alive: or its own record, read above, would be abandoned below.
if known then redis.call('ZADD', LEASES, 'XX', string.format('%.0f', now + ARGV[3]), id) end
local replaces = known and mode ~= 'new'
local function take_back(sign)
  for _, line in pairs(lines) do
    add(line[1], '|held', sign .. line[2])
    add(line[1], '|beyond', sign .. line[3])
  end
end
local changed = reclaim(RECLAIM_AHEAD) > 0
if replaces then take_back('-') end

local admitted = true
for round = 0, RECLAIM_ROUNDS do
  if changed or replaces then values = redis.call('HMGET', COUNTERS, unpack(fields)) end
  admitted = true
  if mode == 'force' or (known and not replaces) then break end -- the same call again: it has its hold
  for n = 1, #counters do
    local i = FIRST + (n - 1) * STRIDE
    if ARGV[i + 9] == '1' and not fits(values[3 * n], values[3 * n + 1], ARGV[i + 6], ARGV[i + 5], values[3 * n + 2]) then
      admitted = false
    end
  end
  if admitted or round == RECLAIM_ROUNDS or reclaim(RECLAIM_WHEN_SHORT) == 0 then break end
  changed = true
end

if admitted and (replaces or not known) then
  local record, first_of_window = {'o'}, false
  for n, counter in ipairs(counters) do
    local i = FIRST + (n - 1) * STRIDE
    first_of_window = first_of_window or not values[3 * n + 1]
    redis.call('HINCRBY', COUNTERS, counter .. '|held', ARGV[i + 6])
    add(counter, '|beyond', ARGV[i + 7])
    record[#record + 1] = counter .. '\t' .. ARGV[i + 6] .. '\t' .. ARGV[i + 8] .. '\t' .. ARGV[i + 7]
  end
  redis.call('HSET', RESERVATIONS, id, table.concat(record, '\n'))
  redis.call('ZADD', LEASES, string.format('%.0f', now + ARGV[3]), id)
  if first_of_window then sweep() end
elseif replaces then
  take_back('')
end
if not admitted then -- a limit that was lowered may be used up, and never be settled again
  for n, counter in ipairs(counters) do
    local i = FIRST + (n - 1) * STRIDE
    alert(counter, tonumber(values[3 * n] or '0'), ARGV[i + 5], ARGV[i + 10])
  end
end
if changed or admitted then sequence = tostring(redis.call('HINCRBY', COUNTERS, sequence_field, 1)) end

local answer = {admitted and 'admitted' or 'refused', now_text, sequence, incarnation}
for n = 1, #counters do
  answer[#answer + 1] = indexes[n]
  answer[#answer + 1] = values[3 * n] or '0'
  answer[#answer + 1] = values[3 * n + 1] or '0'
  answer[#answer + 1] = values[3 * n + 2] or '0'
end
return answer
