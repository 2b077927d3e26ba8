-- Purge once for each value of an annotation: count up, and remember for which value, in one step. So whoever tries
-- again, because the answer was lost or an earlier controller stopped half-way, changes nothing.
-- KEYS: a team's hash of epochs. ARGV: the field that remembers, the value, the field to count up.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
