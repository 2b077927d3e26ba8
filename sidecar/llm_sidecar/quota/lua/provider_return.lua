-- Put back what an attempt did not use, or take what it used beyond: see provider_take.lua.
--
-- KEYS: the provider's buckets. ARGV: requests and tokens to put back; tokens may be negative.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end -- forgotten means full
redis.call('HINCRBYFLOAT', KEYS[1], 'r', ARGV[1]) -- what is over a bucket's size is lost at the next look
redis.call('HINCRBYFLOAT', KEYS[1], 't', ARGV[2])
return 1
