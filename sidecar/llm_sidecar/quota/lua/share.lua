-- Grant a sidecar its part of the team's limits, to spend while the store is away.
--
-- KEYS: counters (hash), shares (hash, see below), share leases (sorted set).
-- ARGV: the sidecar's name, lease in ms (0: give the part back), what all parts together may be (millionths), from and
--       to of the part that it goes by now, then counters.
-- Answer: {from, to, sidecars that share, then used, held and credit for each counter}.
--
-- A part is a stretch of 0 .. whole, in millionths, that overlaps with no other's: so the whole units of a limit that
-- lie on the stretches add up to those of the whole, also where a limit is too small for a unit on each. Each sidecar
-- has its place by its name. It goes by its former part until it says otherwise, for this answer may get lost: so both
-- are its own until it asks again. A new one waits until the others, who ask every few seconds, have moved.
-- A share is a number for each of its parts, or one where they are the same: from * 10^7 + to. Quick to read, for all
-- of them are read each time.

local SHARES, LEASES = KEYS[2], KEYS[3]
local STRIDE = 10000000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = redis.call('ZRANGEBYSCORE', LEASES, '-inf', string.format('%.0f', now), 'LIMIT', 0, 1000)
for _, name in ipairs(ended) do
  redis.call('HDEL', SHARES, name)
  redis.call('ZREM', LEASES, name)
end
if ARGV[2] == '0' then
  redis.call('HDEL', SHARES, ARGV[1])
  redis.call('ZREM', LEASES, ARGV[1])
  return {0, 0, 0}
end
redis.call('ZADD', LEASES, string.format('%.0f', now + ARGV[2]), ARGV[1])

local flat = redis.call('HGETALL', SHARES)
local me, whole, place, sidecars = ARGV[1], tonumber(ARGV[3]), 0, 1
for i = 1, #flat, 2 do
  local name = flat[i]
  if name ~= me then sidecars = sidecars + 1 end
  if name < me then place = place + 1 end
end
local mine_from, mine_to = math.floor(whole * place / sidecars), math.floor(whole * (place + 1) / sidecars)

-- The widest stretch of its own place that nobody has.
local taken = {{mine_to, mine_to}}
local function take(stretch)
  local from, to = math.floor(stretch / STRIDE), stretch % STRIDE
  if from < mine_to and to > mine_from then taken[#taken + 1] = {from, to} end
end
for i = 1, #flat, 2 do
  if flat[i] ~= me then
    local only = tonumber(flat[i + 1])
    if only then
      take(only)
    else
      for stretch in string.gmatch(flat[i + 1], '%d+') do take(tonumber(stretch)) end
    end
  end
end
table.sort(taken, function(a, b) return a[1] < b[1] end)
local best_from, best_to, from = 0, 0, mine_from
for _, other in ipairs(taken) do
  if other[1] - from > best_to - best_from then best_from, best_to = from, other[1] end
  from = math.max(from, other[2])
end
local stretch, former = best_from * STRIDE + best_to, (ARGV[4] or 0) * STRIDE + (ARGV[5] or 0)
local share = string.format('%.0f', stretch)
if former ~= 0 and former ~= stretch then share = share .. string.format(' %.0f', former) end
redis.call('HSET', SHARES, me, share)

local answer = {best_from, best_to, sidecars}
for i = 6, #ARGV do
  local values = redis.call('HMGET', KEYS[1], ARGV[i] .. '|used', ARGV[i] .. '|held', ARGV[i] .. '|credit')
  for n = 1, 3 do answer[#answer + 1] = values[n] or '0' end
end
return answer
