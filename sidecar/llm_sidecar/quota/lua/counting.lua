-- What reserve.lua and settle.lua share; it stands before each of them, with their keys: how a counter is added to, and
-- how a threshold that its use has crossed is told, once for the whole fleet and window.

local COUNTERS, LEASES, RESERVATIONS, LEDGER, ALERTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local LEDGER_ENTRIES, ALERT_ENTRIES = 100000, 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)

-- Amounts stay decimal strings: HINCRBY adds 64-bit integers, Lua's doubles would round them. A counter that is full
-- stays as it is, and the rest of the script still happens. Anything else fails the script: above all that the server
-- has no memory, which it says at the first write of a script, or never. Answer: the sum, or nil.
local function add(counter, kind, amount)
  if amount == '0' or amount == '-0' then return nil end
  local sum = redis.pcall('HINCRBY', COUNTERS, counter .. kind, amount)
  if type(sum) == 'number' then return sum end
  if not string.find(sum.err, 'overflow', 1, true) then redis.call('HINCRBY', COUNTERS, counter .. kind, amount) end
  return nil
end

-- A limit's counter without its window.
local function limit_of(counter)
  return string.match(counter, '^(.*)|%d+|%d+$')
end

-- `used` is a number, for it is compared as a percentage; `thresholds` are in per cent, ascending ('50,80').
local function alert(counter, used, limit, thresholds)
  local lowest = string.match(thresholds, '^%d+')
  if not lowest or used * 100 < tonumber(limit) * tonumber(lowest) then return end
  local told = redis.call('HMGET', COUNTERS, counter .. '|alerted', counter .. '|credit', counter .. '|reset')
  local reset = tonumber(told[3] or '0')
  local maximum = tonumber(limit) + tonumber(told[2] or '0') - reset
  local highest = tonumber(told[1] or '0')
  for percent in string.gmatch(thresholds, '%d+') do
    if tonumber(percent) > highest and (used - reset) * 100 >= maximum * tonumber(percent) then
      local name, unit, per, start_ms, end_ms = string.match(counter, '^(.-)|(.-)|(.-)|(%d+)|(%d+)$')
      local entry = redis.pcall('XADD', ALERTS, 'MAXLEN', '~', ALERT_ENTRIES, '*', 'limit', name, 'unit', unit,
        'per', per, 'start_ms', start_ms, 'end_ms', end_ms, 'percent', percent,
        'used', string.format('%.0f', used - reset), 'maximum', string.format('%.0f', maximum), 'at_ms', now_text)
      -- Where a refusal finds no memory to tell it, it stays a refusal, and a later one tells it.
      if type(entry) == 'table' then return end
      redis.call('HSET', COUNTERS, counter .. '|alerted', percent)
    end
  end
end
