//! The Lua scripts that decide about an existing key on the server, where nobody comes in between.
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

/// `EVALSHA <sha1> 1 <key> <expires_ms, 0 for never> <document>`: returns 0 and changes nothing when the key exists, of
/// whatever type, else writes the document with its expiry and returns 1.
pub const KEEP_DOCUMENT_SCRIPT: &str = "\
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('JSON.SET', KEYS[1], '$', ARGV[2])
if ARGV[1] ~= '0' then redis.call('PEXPIREAT', KEYS[1], ARGV[1]) end
return 1
";

/// SHA-1 of `KEEP_DOCUMENT_SCRIPT`, as `SCRIPT LOAD` answers it.
pub const KEEP_DOCUMENT_SHA1: &str = "051bac3e54917cf40e45910b8b1ed8f9ecd27294";

/// `EVALSHA <sha1> <rows> <key> … <layout and kind> <name>`, and for each row in the order of the keys `<digits>
/// <expires_ms, 0 for never> <values> …`: returns `-1 - kept`. A key that holds a newer version in its field or member
/// `name`, or one that cannot be read, is kept as it is; under every other key exactly the entry of its row is left.
///
/// `layout and kind` is `h`, `j` or `d` (a document) and the letter of the version's kind; `digits` are those of
/// `schemas::version::VersionKind::write_digits`. `values` is how many follow: `<field> <value> …` of a hash, or one
/// JSON text. A key of another type, or without a version, is older than any row; an equal version is written again.
///
/// Below zero, so that a count of rows is told from the 0 and 1 of scripts that decide about all their rows at once.
/// Several rows share a call because making the functions of the script costs the server more than running them.
///
/// Numbers are compared as digits, because those of Lua are floats that end at 2^53; and JSON is scanned, because
/// `cjson` makes such floats too. What is read, and how, is what `schemas::version::Stored` reads.
pub const NEWEST_SCRIPT: &str = include_str!("newest.lua");

/// SHA-1 of `NEWEST_SCRIPT`, as `SCRIPT LOAD` answers it.
pub const NEWEST_SHA1: &str = "c2c6be7651e731c4980d9eb75bf0d2be3541fb3c";
