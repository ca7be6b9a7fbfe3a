//! Lua scripts for keys of many rows: writing one only where none exists, and putting a finished one in its place.
//!
//! Invariant: each does all of its work or none; text and SHA-1 belong together (a test compares them).

/// `EVALSHA <sha1> 1 <key> <verb> <expires_ms, 0 for never> <argument> …`: returns 0 and changes nothing when the
/// key exists, else adds the elements, sets the expiry and returns 1.
///
/// Arguments go in slices because Lua 5.1's `unpack` is limited by the C stack (`LUAI_MAXCSTACK`, 8000).
pub const KEEP_ELEMENTS_SCRIPT: &str = "\
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 3, #ARGV, 4000 do
  redis.call(ARGV[1], KEYS[1], unpack(ARGV, i, math.min(i + 3999, #ARGV)))
end
if ARGV[2] ~= '0' then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
return 1
";

/// SHA-1 of `KEEP_ELEMENTS_SCRIPT`, as `SCRIPT LOAD` answers it.
pub const KEEP_ELEMENTS_SHA1: &str = "9c3bb78e6859c5330a76f7a419dae2d74b6f1e01";

/// `EVAL <script> 2 <temporary key> <key> <verb that counts> <elements> <expires_ms, 0 for never> <keep or replace>`:
/// puts the temporary key in the place of the key and returns 1.
///
/// Where the temporary key does not have so many elements (part of it got lost with a connection), nothing is changed
/// and the answer is an error. With `keep`, a key that exists stays, the temporary one goes, and the answer is 0.
pub const FINISH_SCRIPT: &str = "\
if redis.call(ARGV[1], KEYS[1]) ~= tonumber(ARGV[2]) then
  return redis.error_reply('REKINDLE a key that was being built is incomplete')
end
if ARGV[4] == 'keep' and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('UNLINK', KEYS[1])
  return 0
end
redis.call('UNLINK', KEYS[2])
redis.call('RENAME', KEYS[1], KEYS[2])
if ARGV[3] == '0' then redis.call('PERSIST', KEYS[2])
else redis.call('PEXPIREAT', KEYS[2], ARGV[3]) end
return 1
";
