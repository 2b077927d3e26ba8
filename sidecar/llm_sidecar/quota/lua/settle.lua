-- Replace holds by what was used. By id, so that telling it twice charges once.
--
-- KEYS: as in reserve.lua, where the records are explained.
-- ARGV: for each settlement: id, mode, number of counters, then for each counter: its name, amount used.
-- Modes say what it means when the id has no record:
--   first     its reservation was answered, and this is the first settle: the store lost it; charge what is told here
--   again     a settle whose answer was lost may have come through: then it is done
--   unbacked  the reservation was never answered: charge, and close the id in case the reservation is still on its way
-- Answer: number of settlements.

local COUNTERS, LEASES, RESERVATIONS = KEYS[1], KEYS[2], KEYS[3]
local CLOSED_KEPT_MS = 60 * 60 * 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Amounts stay decimal strings: HINCRBY adds 64-bit integers, Lua's doubles would round them. A counter that is full
-- stays as it is, and the rest of the script still happens.
local function add(counter, kind, amount)
  if amount ~= '0' and amount ~= '-0' then redis.pcall('HINCRBY', COUNTERS, counter .. kind, amount) end
end

-- A limit's counter without its window: the window that was reserved is the record's, not the caller's guess.
local function limit_of(counter)
  return string.match(counter, '^(.*)|%d+|%d+$')
end

local function close(id, mode)
  if mode == 'first' then
    redis.call('HDEL', RESERVATIONS, id)
    redis.call('ZREM', LEASES, id)
  else -- an earlier command with this id may still arrive
    redis.call('HSET', RESERVATIONS, id, 'c')
    redis.call('ZADD', LEASES, string.format('%.0f', now + CLOSED_KEPT_MS), id)
  end
end

local function settle(id, mode, told)
  local record = redis.call('HGET', RESERVATIONS, id)
  local state = record and string.sub(record, 1, 1)
  if state == 'c' or (not record and mode == 'again') then return end
  if not record then
    for _, entry in ipairs(told) do add(entry[1], '|used', entry[2]) end
    if mode == 'unbacked' then close(id, mode) end
    return
  end
  local amounts = {}
  for _, entry in ipairs(told) do amounts[limit_of(entry[1])] = entry[2] end
  for counter, held, charged in string.gmatch(record, '([^\t\n]+)\t(%d+)\t(%d+)') do
    if state == 'o' then
      add(counter, '|held', '-' .. held)
    else -- abandoned: charged already with what it surely sent
      add(counter, '|used', '-' .. charged)
    end
    add(counter, '|used', amounts[limit_of(counter)] or '0')
  end
  close(id, mode)
end

local i, settlements = 1, 0
while i <= #ARGV do
  local told = {}
  for n = 1, tonumber(ARGV[i + 2]) do told[n] = {ARGV[i + 1 + 2 * n], ARGV[i + 2 + 2 * n]} end
  settle(ARGV[i], ARGV[i + 1], told)
  i = i + 3 + 2 * #told
  settlements = settlements + 1
end
return settlements
