-- An answer, and what purges have counted: in one step, so that neither is older than the other. What is no answer, or
-- no hash, is nothing: an error would speak for the whole store.
-- KEYS: the entry, the hash of epochs. ARGV: the fields of the hash.
local entry = redis.pcall('GET', KEYS[1])
if type(entry) == 'table' then entry = false end
-- Most teams have never purged anything: asking for five fields would cost more than all the rest.
if redis.call('EXISTS', KEYS[2]) == 0 then return {entry, 0} end
local epochs = redis.pcall('HMGET', KEYS[2], unpack(ARGV))
if epochs.err then epochs = false end
return {entry, epochs}
