-- Grant a sidecar its part of the team's limits, to spend while the store is away.
--
-- KEYS: counters (hash), shares (hash), share leases (sorted set).
-- ARGV: the sidecar's name, lease in ms (0: give the part back), what all parts together may be (millionths), then
--       counters. Answer: {part in millionths, then used, held and credit for each counter}.
--
-- The sum of all parts that have not ended never exceeds the whole: a new sidecar waits until the others, who ask
-- every few seconds, have given up some of theirs.

local SHARES, LEASES = KEYS[2], KEYS[3]
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
  return {0}
end
redis.call('ZADD', LEASES, string.format('%.0f', now + ARGV[2]), ARGV[1])
local others = 0
local flat = redis.call('HGETALL', SHARES)
for i = 1, #flat, 2 do
  if flat[i] ~= ARGV[1] then others = others + tonumber(flat[i + 1]) end
end
local whole = tonumber(ARGV[3])
local part = math.max(0, math.min(math.floor(whole / redis.call('ZCARD', LEASES)), whole - others))
redis.call('HSET', SHARES, ARGV[1], string.format('%.0f', part))
local answer = {part}
for i = 4, #ARGV do
  local values = redis.call('HMGET', KEYS[1], ARGV[i] .. '|used', ARGV[i] .. '|held', ARGV[i] .. '|credit')
  for n = 1, 3 do answer[#answer + 1] = values[n] or '0' end
end
return answer
