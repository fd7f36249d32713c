#!lua flags=no-writes
-- Reads on in the log, as read.lua does where a transaction cannot.
--
-- KEYS[1..2], ARGV[1..3]  see base.lua
-- ARGV[4]  sequence after which to begin      ARGV[5]  how many entries
--
-- Returns {now, generation, sequence, entries}, the entries as XRANGE does.
look()
return {now, gen or '', seq, call('XRANGE', LOG, '(' .. ARGV[4] .. '-0', '+', 'COUNT', ARGV[5])}
