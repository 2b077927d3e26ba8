-- Give back to a server what it has forgotten (it restarted empty, or an older copy took over), as far as this sidecar
-- has seen it: nothing of a current window is lower than what was seen.
--
-- KEYS: counters (hash). ARGV: incarnation seen ('' for none), name for a new one, field of the caller's sequence, the
--       highest that it has seen, then fields ("counter|used", "counter|credit") and their values.
-- Answer: {sequence, incarnation}.
--
-- The first sidecar that notices names a new incarnation, which makes every other one tell what it has seen, too.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told = redis.call('HMGET', KEYS[1], ARGV[3], '#incarnation')
local incarnation = told[2]
if not incarnation or incarnation == ARGV[1] then
  incarnation = ARGV[2]
  redis.call('HSET', KEYS[1], '#incarnation', incarnation)
end
for i = 5, #ARGV, 2 do
  if tonumber(string.match(ARGV[i], '|(%d+)|%a+$')) > now then
    local known = redis.call('HGET', KEYS[1], ARGV[i])
    -- Doubles do: a limit is below 2^53, and beyond it there is no room in either case.
    if tonumber(known or '0') < tonumber(ARGV[i + 1]) then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
      -- The fraction of a nano-dollar that stands beside it belongs to the older, lower figure.
      local rest, is_used = string.gsub(ARGV[i], '|used$', '|rest')
      if is_used == 1 then redis.call('HDEL', KEYS[1], rest) end
    end
  end
end
local sequence = math.max(tonumber(told[1] or '0'), tonumber(ARGV[4])) + 1
redis.call('HSET', KEYS[1], ARGV[3], string.format('%.0f', sequence))
return {string.format('%.0f', sequence), incarnation}
