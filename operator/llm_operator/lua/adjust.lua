-- Give a team more room in one window, or let its use count from zero again. What was charged stays charged.
--
-- KEYS: counters (hash), ledger (stream). ARGV: 'grant' or 'reset', counter, its limit, amount granted ('0' for a
-- reset), id of this adjustment, who, why.
-- Answer: used, held, credit and reset as they were, then as they are. Where an adjustment of this id happened before,
-- the two are the same.
--
-- Amounts are decimal strings that only HINCRBY adds: Lua's doubles would round them.

local COUNTERS, LEDGER = KEYS[1], KEYS[2]
local LEDGER_ENTRIES, LAST_ENTRIES = 100000, 1000
local mode, counter, limit, amount, id, who, reason = unpack(ARGV)

local function figures()
  local kinds = {counter .. '|used', counter .. '|held', counter .. '|credit', counter .. '|reset'}
  local found = redis.call('HMGET', COUNTERS, unpack(kinds))
  for n = 1, 4 do found[n] = found[n] or '0' end
  return found
end

-- A command whose answer was lost is sent again.
local function happened()
  for _, entry in ipairs(redis.call('XREVRANGE', LEDGER, '+', '-', 'COUNT', LAST_ENTRIES)) do
    for n = 1, #entry[2], 2 do
      if entry[2][n] == 'id' then
        if entry[2][n + 1] == id then return true end
        break
      end
    end
  end
  return false
end

local before = figures()
if not happened() then
  if mode == 'reset' then
    -- All that was used is given back. What was given back before is in `credit` already.
    redis.call('HINCRBY', COUNTERS, counter .. '|credit', before[1])
    if before[4] ~= '0' then redis.call('HINCRBY', COUNTERS, counter .. '|credit', '-' .. before[4]) end
    redis.call('HSET', COUNTERS, counter .. '|reset', before[1])
  else
    redis.call('HINCRBY', COUNTERS, counter .. '|credit', amount)
  end

  -- Thresholds that are not reached any more may be crossed, and told, again. Doubles do: it is a percentage.
  local now = figures()
  local used, maximum = tonumber(now[1]) - tonumber(now[4]), tonumber(limit) + tonumber(now[3]) - tonumber(now[4])
  local percent = math.max(0, math.floor(used * 100 / maximum))
  local alerted = tonumber(redis.call('HGET', COUNTERS, counter .. '|alerted') or '0')
  if alerted > percent then redis.call('HSET', COUNTERS, counter .. '|alerted', string.format('%.0f', percent)) end

  local time = redis.call('TIME')
  local now_text = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('XADD', LEDGER, 'MAXLEN', '~', LEDGER_ENTRIES, '*', 'id', id, 'at_ms', now_text, 'source', 'adjusted',
    'who', who, 'reason', reason, 'adjustment', mode, 'counter', counter, 'amount', amount,
    'reset_from', before[4], 'reset_to', now[4], 'charges', '')
end
local now = figures()
return {before[1], before[2], before[3], before[4], now[1], now[2], now[3], now[4]}
