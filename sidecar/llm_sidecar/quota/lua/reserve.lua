-- Reserve in every window at once, or in none, by the server's own clock.
--
-- KEYS: counters (hash), leases (sorted set), reservations (hash); all of one team, so of one Cluster slot.
-- ARGV: id, lease in ms, then for each limit: counter of the current window, counter of the next one, start of the
--       current, the instant between the two, end of the next, limit, amount to hold, charge if abandoned (<= amount).
-- Answer: {'admitted' | 'refused', now, then for each limit: 0 or 1 (current or next window), and what was
--         used and held before}
--       | {'stale', now}: the caller's windows are not those of this moment; nothing was changed
--       | {'closed', now}: this id was settled already.
--
-- A record is its state (o open, a abandoned, c closed), then a line "counter TAB amount TAB charge" for each limit.
-- The keys never expire: a server that evicts what expires (volatile-*) must not lose a counter.

local COUNTERS, LEASES, RESERVATIONS = KEYS[1], KEYS[2], KEYS[3]
local RECLAIM_AHEAD, RECLAIM_WHEN_SHORT, RECLAIM_ROUNDS = 20, 200, 10
local SWEEP_FIELDS = 500
local ABANDONED_KEPT_MS = 24 * 60 * 60 * 1000
local FIRST, STRIDE = 3, 8

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)

-- Lua's numbers are doubles: above 2^53 they are no longer exact. So amounts stay decimal strings, are added by
-- HINCRBY (64-bit integers), and are compared as two halves of nine digits and the rest, each far below 2^53.
local function halves(text)
  if not text or string.byte(text) == 45 then return 0, 0 end -- missing, or "-…" after keys were deleted by hand
  local length = #text
  if length <= 9 then return 0, tonumber(text) end
  return tonumber(string.sub(text, 1, length - 9)), tonumber(string.sub(text, length - 8))
end

local function fits(used, held, amount, limit)
  local used_high, used_low = halves(used)
  local held_high, held_low = halves(held)
  local amount_high, amount_low = halves(amount)
  local limit_high, limit_low = halves(limit)
  local low = used_low + held_low + amount_low
  local carry = math.floor(low / 1000000000)
  local high = used_high + held_high + amount_high + carry
  return high < limit_high or (high == limit_high and low - carry * 1000000000 <= limit_low)
end

-- A reservation whose lease ended belongs to a sidecar that is gone: its hold goes, what it surely sent is charged.
-- The record stays for a while, so that a late settle can charge the difference.
local function reclaim(count)
  local ids = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now_text, 'LIMIT', 0, count)
  for _, id in ipairs(ids) do
    local record = redis.call('HGET', RESERVATIONS, id)
    if record and string.sub(record, 1, 1) == 'o' then
      for counter, amount, charge in string.gmatch(record, '([^\t\n]+)\t(%d+)\t(%d+)') do
        if amount ~= '0' then redis.call('HINCRBY', COUNTERS, counter .. '|held', '-' .. amount) end
        if charge ~= '0' then redis.call('HINCRBY', COUNTERS, counter .. '|used', charge) end
      end
      redis.call('HSET', RESERVATIONS, id, 'a' .. string.sub(record, 2))
      redis.call('ZADD', LEASES, string.format('%.0f', now + ABANDONED_KEPT_MS), id)
    else
      redis.call('HDEL', RESERVATIONS, id)
      redis.call('ZREM', LEASES, id)
    end
  end
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

local counters, indexes, fields = {}, {}, {}
for i = FIRST, #ARGV, STRIDE do
  if now < tonumber(ARGV[i + 2]) or now >= tonumber(ARGV[i + 4]) then return {'stale', now_text} end
  local index = now < tonumber(ARGV[i + 3]) and 0 or 1
  local counter = ARGV[i + index]
  counters[#counters + 1], indexes[#indexes + 1] = counter, index
  fields[#fields + 1] = counter .. '|used'
  fields[#fields + 1] = counter .. '|held'
end

local id = ARGV[1]
local known = redis.call('HGET', RESERVATIONS, id)
if known and string.sub(known, 1, 1) ~= 'o' then return {'closed', now_text} end

reclaim(RECLAIM_AHEAD)
local values, admitted
for round = 0, RECLAIM_ROUNDS do
  values, admitted = redis.call('HMGET', COUNTERS, unpack(fields)), true
  if known then break end -- the same call again: it has its hold
  for n = 1, #counters do
    local i = FIRST + (n - 1) * STRIDE
    if not fits(values[2 * n - 1], values[2 * n], ARGV[i + 6], ARGV[i + 5]) then admitted = false end
  end
  if admitted or round == RECLAIM_ROUNDS or reclaim(RECLAIM_WHEN_SHORT) == 0 then break end
end

if admitted and not known then
  local lines, first_of_window = {'o'}, false
  for n, counter in ipairs(counters) do
    local i = FIRST + (n - 1) * STRIDE
    first_of_window = first_of_window or not values[2 * n]
    redis.call('HINCRBY', COUNTERS, counter .. '|held', ARGV[i + 6])
    lines[#lines + 1] = counter .. '\t' .. ARGV[i + 6] .. '\t' .. ARGV[i + 7]
  end
  redis.call('HSET', RESERVATIONS, id, table.concat(lines, '\n'))
  redis.call('ZADD', LEASES, string.format('%.0f', now + ARGV[2]), id)
  if first_of_window then sweep() end
end

local answer = {admitted and 'admitted' or 'refused', now_text}
for n = 1, #counters do
  answer[#answer + 1] = indexes[n]
  answer[#answer + 1] = values[2 * n - 1] or '0'
  answer[#answer + 1] = values[2 * n] or '0'
end
return answer
