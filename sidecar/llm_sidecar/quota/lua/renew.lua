-- Extend the leases of reservations that are still at work.
--
-- KEYS: as in reserve.lua. ARGV: lease in ms, then ids. Answer: number of leases extended.

local time = redis.call('TIME')
local lease_end = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
local renewed = 0
for i = 2, #ARGV do
  local record = redis.call('HGET', KEYS[3], ARGV[i])
  if record and string.sub(record, 1, 1) == 'o' then
    redis.call('ZADD', KEYS[2], lease_end, ARGV[i])
    renewed = renewed + 1
  end
end
return renewed
