-- An answer, and what purges have counted: in one step, so that neither is older than the other. What is no answer, or
-- no hash, is nothing: an error would speak for the whole store.
-- KEYS: the entry, the hash of epochs. ARGV: the fields of the hash.
local entry = redis.pcall('GET', KEYS[1])
local epochs = redis.pcall('HMGET', KEYS[2], unpack(ARGV))
if type(entry) == 'table' then entry = false end
if epochs.err then epochs = false end
return {entry, epochs}
