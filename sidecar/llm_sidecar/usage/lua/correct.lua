-- Set counters right by differences, so that what is charged meanwhile stays charged; and tell the ledger.
--
-- KEYS: counters (hash), ledger (stream). ARGV: id, who, why, then for each counter: its name, whole units to add, and
-- of cost the femto-dollars to add beyond those (-999999 to 999999). Answer: number of counters.
--
-- The ledger's entry has no charges: nothing was spent, so sums over the ledger stay as they are.

local COUNTERS, LEDGER = KEYS[1], KEYS[2]
local LEDGER_ENTRIES, FEMTO_PER_NANO = 100000, 1000000
local corrections = {}
for i = 4, #ARGV, 3 do
  local counter, amount, rest = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if rest ~= '0' then
    local sum = redis.call('HINCRBY', COUNTERS, counter .. '|rest', rest)
    if sum < 0 then
      redis.call('HINCRBY', COUNTERS, counter .. '|rest', FEMTO_PER_NANO)
      redis.call('HINCRBY', COUNTERS, counter .. '|used', -1)
    elseif sum >= FEMTO_PER_NANO then
      redis.call('HINCRBY', COUNTERS, counter .. '|rest', -FEMTO_PER_NANO)
      redis.call('HINCRBY', COUNTERS, counter .. '|used', 1)
    end
  end
  if amount ~= '0' then redis.call('HINCRBY', COUNTERS, counter .. '|used', amount) end
  corrections[#corrections + 1] = counter .. '\t' .. amount .. '\t' .. rest
end
local time = redis.call('TIME')
redis.call('XADD', LEDGER, 'MAXLEN', '~', LEDGER_ENTRIES, '*', 'id', ARGV[1],
  'at_ms', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), 'source', 'adjusted', 'who', ARGV[2],
  'reason', ARGV[3], 'adjustment', 'recompute', 'corrections', table.concat(corrections, '\n'), 'charges', '')
return #corrections
