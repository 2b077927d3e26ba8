-- A team's counters, and the time by which they count. Writes nothing.
--
-- KEYS: counters (hash). Answer: {seconds, microseconds, the hash's fields and values in turn}.

local time = redis.call('TIME')
return {time[1], time[2], redis.call('HGETALL', KEYS[1])}
