-- Purge by epochs: count up what is named, and let `not_before` only ever grow.
-- KEYS: the hash of epochs. ARGV: `not_before` in Unix seconds or '', then the fields.
local changed = #ARGV - 1
if ARGV[1] ~= '' and tonumber(ARGV[1]) > tonumber(redis.call('HGET', KEYS[1], 'not_before') or '0') then
  redis.call('HSET', KEYS[1], 'not_before', ARGV[1])
  changed = changed + 1
end
for position = 2, #ARGV do
  redis.call('HINCRBY', KEYS[1], ARGV[position], 1)
end
return changed
