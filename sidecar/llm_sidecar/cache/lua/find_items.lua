-- Many entries, and what purges have counted: in one step, so that none is older than another. What is no entry, or no
-- hash, is nothing: an error would speak for the whole store.
-- KEYS: the hash of epochs, the entries, if any. ARGV: the fields of the hash.
local entries = {}
if #KEYS > 1 then entries = redis.call('MGET', unpack(KEYS, 2)) end
local epochs = redis.pcall('HMGET', KEYS[1], unpack(ARGV))
if epochs.err then epochs = false end
return {entries, epochs}
