-- Put back what an attempt did not use, or take what it used beyond: see provider_take.lua.
--
-- KEYS: the provider's buckets. ARGV: requests and tokens to put back; tokens may be negative.

-- A bucket that was forgotten is full, and stays so.
for index, field in ipairs({'r', 't'}) do
  if redis.call('HEXISTS', KEYS[1], field) == 1 then -- else it is not limited
    redis.call('HINCRBYFLOAT', KEYS[1], field, ARGV[index]) -- what is over a bucket's size is lost at the next look
  end
end
return 1
