-- Take a request and its tokens from what a provider grants each minute, or nothing: two buckets that fill all the time
-- and hold a minute's worth, as the providers' own do. By the server's clock.
--
-- KEYS: the provider's buckets (hash: r, t are what is left, at is when, in ms). No money: doubles are exact enough.
-- ARGV: requests per minute, tokens per minute (0: not limited), tokens wanted.
-- Answer: 0 where they were taken, else the milliseconds until they could be.

local MINUTE_MS = 60000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local values = redis.call('HMGET', KEYS[1], 'r', 't', 'at')
local elapsed = math.max(0, now - (tonumber(values[3]) or now))

local function level(value, rate)
  return math.min(rate, (tonumber(value) or rate) + rate * elapsed / MINUTE_MS)
end

local function wait_ms(left, wanted, rate)
  -- More than a whole minute's worth goes once the bucket is full: it could never be there at once.
  local needed = math.min(wanted, rate)
  if rate == 0 or left >= needed then return 0 end
  return math.ceil((needed - left) * MINUTE_MS / rate)
end

local request_rate, token_rate, tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local requests_left, tokens_left = level(values[1], request_rate), level(values[2], token_rate)
local wait = math.max(wait_ms(requests_left, 1, request_rate), wait_ms(tokens_left, tokens, token_rate))
if wait > 0 then return wait end

local function keep(field, left, rate)
  if rate == 0 then -- or what is not limited now would be a debt once it is
    redis.call('HDEL', KEYS[1], field)
    return 0
  end
  redis.call('HSET', KEYS[1], field, left)
  return math.ceil((rate - left) * MINUTE_MS / rate)
end

redis.call('HSET', KEYS[1], 'at', string.format('%.0f', now))
local full_ms = math.max(keep('r', requests_left - 1, request_rate), keep('t', tokens_left - tokens, token_rate))
redis.call('PEXPIRE', KEYS[1], full_ms + MINUTE_MS) -- forgotten means full
return 0
