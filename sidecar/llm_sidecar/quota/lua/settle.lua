-- Replace holds by what was used. By id, so that telling it twice charges once. What is charged goes into the ledger,
-- and a threshold that is crossed by it into the alerts, once for the whole fleet and window.
--
-- KEYS: as in reserve.lua, where the records are explained. counting.lua stands before this script.
-- ARGV: field of the caller's sequence, the highest that it has seen, incarnation seen ('' for none), the sidecar's
--       name, then for each settlement: id, mode, number of counters, then for each counter: its name,
--       amount used, of cost the femto-dollars beyond whole nano-dollars, the limit, thresholds in per cent ('50,80');
--       then the ledger's words: api, provider, model, asked model, source, input, cache read, cache write, output,
--       reasoning, nano-USD, femto-USD beyond those, status.
-- Modes say what it means when the id has no record:
--   first     its reservation was answered, and this is the first settle: the store lost it; charge what is told here
--   again     a settle whose answer was lost may have come through: then it is done
--   unbacked  the reservation was never answered: charge, and close the id in case the reservation is still on its way
-- Answer: {sequence, incarnation or '', then counter, used for each counter that was charged}
--       | {'lost'}: the server has forgotten what the caller has seen; nothing was changed: see restore.lua

local CLOSED_KEPT_MS = 60 * 60 * 1000
local FEMTO_PER_NANO = 1000000
local LEDGER_WORDS = {'api', 'provider', 'model', 'asked_model', 'source', 'input', 'cache_read', 'cache_write', 'output',
  'reasoning', 'nano_usd', 'femto_rest', 'status'}

local used_now = {}

-- For the ledger: a decimal with six digits of a nano-dollar, where there is such a rest. One charge is below 2^53.
local function delta_text(whole, rest)
  if rest == 0 then return string.format('%.0f', whole) end
  if whole >= 0 then return string.format('%.0f.%06d', whole, rest) end
  return string.format('-%.0f.%06d', -whole - 1, FEMTO_PER_NANO - rest)
end

-- Charges a counter, `less` of it being charged already. The fraction of a nano-dollar is kept until it makes one.
local function charge(counter, told, less, charges)
  local amount, rest = told and told[1] or '0', told and told[2] or '0'
  if rest ~= '0' then
    local sum = redis.call('HINCRBY', COUNTERS, counter .. '|rest', rest)
    if sum >= FEMTO_PER_NANO then
      redis.call('HINCRBY', COUNTERS, counter .. '|rest', -FEMTO_PER_NANO)
      add(counter, '|used', '1')
    end
  end
  local used = add(counter, '|used', amount)
  if less ~= '0' then used = add(counter, '|used', '-' .. less) or used end
  charges[#charges + 1] = counter .. '\t' .. delta_text(tonumber(amount) - tonumber(less), tonumber(rest))
  if used then
    used_now[counter] = used
    if told then alert(counter, used, told[3], told[4]) end
  end
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

local function settle(id, mode, told, entry)
  local record = redis.call('HGET', RESERVATIONS, id)
  local state = record and string.sub(record, 1, 1)
  if state == 'c' or (not record and mode == 'again') then return end
  local charges = {}
  if record then
    local amounts, unmatched = {}, {}
    -- The window that was reserved is the record's, not the caller's guess.
    for _, one in ipairs(told) do
      local limit = limit_of(one.counter)
      amounts[limit], unmatched[limit] = one, one
    end
    for counter, held, charged, beyond in string.gmatch(record, '([^\t\n]+)\t(%d+)\t(%d+)\t(%d+)') do
      local less = '0'
      if state == 'o' then
        add(counter, '|held', '-' .. held)
        add(counter, '|beyond', '-' .. beyond)
      else -- abandoned: charged already with what it surely sent
        less = charged
      end
      local limit = limit_of(counter)
      charge(counter, amounts[limit], less, charges)
      unmatched[limit] = nil
    end
    for _, one in pairs(unmatched) do charge(one.counter, one, '0', charges) end
    close(id, mode)
  else
    for _, one in ipairs(told) do charge(one.counter, one, '0', charges) end
    if mode == 'unbacked' then close(id, mode) end
  end
  -- What was released was not spent; but what had been charged for it meanwhile is taken back.
  if entry[5] == '' and string.find('\n' .. table.concat(charges, '\n'), '\t%-?[1-9]') then entry[5] = 'released' end
  if entry[5] ~= '' then
    local words = {'id', id, 'at_ms', now_text, 'sidecar', ARGV[4], 'charges', table.concat(charges, '\n')}
    for n, name in ipairs(LEDGER_WORDS) do
      words[#words + 1] = name
      words[#words + 1] = entry[n]
    end
    redis.call('XADD', LEDGER, 'MAXLEN', '~', LEDGER_ENTRIES, '*', unpack(words))
  end
end

local told = redis.call('HMGET', COUNTERS, ARGV[1], '#incarnation')
if tonumber(told[1] or '0') < tonumber(ARGV[2]) or (ARGV[3] ~= '' and ARGV[3] ~= told[2]) then return {'lost'} end
-- Before every other write: a server without memory refuses this one, and so the script, while nothing has changed.
local sequence = redis.call('HINCRBY', COUNTERS, ARGV[1], 1)

local i = 5
while i <= #ARGV do
  local id, mode, count = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local told = {}
  i = i + 3
  for n = 1, count do
    told[n] = {ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], counter = ARGV[i]}
    i = i + 5
  end
  settle(id, mode, told, {unpack(ARGV, i, i + #LEDGER_WORDS - 1)})
  i = i + #LEDGER_WORDS
end

local answer = {tostring(sequence), told[2] or ''}
for counter, used in pairs(used_now) do
  answer[#answer + 1] = counter
  answer[#answer + 1] = string.format('%.0f', used)
end
return answer
