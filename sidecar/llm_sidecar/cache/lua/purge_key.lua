-- Purge one answer: it is deleted, and one that is still under way is void when it comes.
-- KEYS: the hash of epochs, the sorted set of keys that were purged, the entry. ARGV: its field, how many are remembered.
local now = redis.call('TIME')
-- A time, not a count: a number that was forgotten must not come again.
local epoch = tonumber(now[1]) * 1000000 + tonumber(now[2])
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', math.max(epoch, before + 1)))
redis.call('ZADD', KEYS[2], string.format('%.0f', epoch), ARGV[1])
redis.call('UNLINK', KEYS[3])
local surplus = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[2])
if surplus <= 0 then return 1 end
-- The oldest are forgotten, and with them whatever was asked for before the last of these was purged.
local oldest = redis.call('ZRANGE', KEYS[2], 0, math.min(surplus, 100) - 1, 'WITHSCORES')
for position = 1, #oldest, 2 do
  redis.call('HDEL', KEYS[1], oldest[position])
  redis.call('ZREM', KEYS[2], oldest[position])
end
local not_before = math.floor(tonumber(oldest[#oldest]) / 1000000) + 1
if not_before > (tonumber(redis.call('HGET', KEYS[1], 'not_before') or '0') or 0) then
  redis.call('HSET', KEYS[1], 'not_before', not_before)
end
return 1
