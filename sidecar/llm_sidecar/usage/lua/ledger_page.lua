-- One page of a team's ledger. Writes nothing.
--
-- KEYS: ledger (stream), counters (hash). ARGV: from which id on (as XRANGE takes it), how many entries, 1 to get the
-- counters as they are after the last page.
-- Answer: {entries, counters as fields and values in turn; none where there may be another page}.

local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
local counters = {}
if ARGV[3] == '1' and #entries < tonumber(ARGV[2]) then counters = redis.call('HGETALL', KEYS[2]) end
return {entries, counters}
