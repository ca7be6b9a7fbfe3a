//! The Lua script that writes a hash only where no key exists.
//!
//! Invariant: text and SHA-1 belong together; a changed text needs a new SHA-1 (a test compares them).

/// `EVALSHA <sha1> 1 <key> <expires_ms, 0 for never> <field> <value> …`: returns 0 and changes nothing when
/// the key exists, else writes the hash with its expiry and returns 1.
///
/// Fields go in slices because Lua 5.1's `unpack` is limited by the C stack (`LUAI_MAXCSTACK`, 8000).
pub const KEEP_HASH_SCRIPT: &str = "\
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 2, #ARGV, 4000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 3999, #ARGV)))
end
if ARGV[1] ~= '0' then redis.call('PEXPIREAT', KEYS[1], ARGV[1]) end
return 1
";

/// SHA-1 of `KEEP_HASH_SCRIPT`, as `SCRIPT LOAD` answers it.
pub const KEEP_HASH_SHA1: &str = "46819ae8b2a926b33deb725f47c9687f0e12bb5b";
