-- Answers, and what purges have counted: in one step, so that neither is older than the other. What is no answer, or
-- no hash, is nothing: an error would speak for the whole store.
-- KEYS: an entry, the hash of epochs, more entries (most often none). ARGV: the fields of the hash.
local found = {redis.pcall('GET', KEYS[1]), 0}
for position = 3, #KEYS do found[position] = redis.pcall('GET', KEYS[position]) end
for position = 1, #found do
  if type(found[position]) == 'table' then found[position] = false end
end
-- Most teams have never purged anything: asking for five fields would cost more than all the rest.
if redis.call('EXISTS', KEYS[2]) == 0 then return found end
local epochs = redis.pcall('HMGET', KEYS[2], unpack(ARGV))
if epochs.err then epochs = false end
found[2] = epochs
return found
