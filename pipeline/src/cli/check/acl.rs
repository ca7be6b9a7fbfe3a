//! Role and access rights of the target, asked over one raw stream.
//!
//! Invariant: `ACL DRYRUN` answers for the server; nothing of what it is asked about is executed.

use super::controls::Control;
use schemas::plan::Layout;
use stages::connect::redis::Stream;
use stages::transform::many_rows::TEMPORARY_PREFIX;
use stages::transform::redis_command::TRIAL_PREFIX;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a run needs, each with arguments of the right number; `KEY` stands for a key of the plan.
const COMMANDS: [&[&str]; 17] = [
    &["SET", KEY, "x"],
    &["MSET", KEY, "x"],
    &["HSET", KEY, "f", "x"],
    &["DEL", KEY],
    &["EXISTS", KEY],
    &["PEXPIREAT", KEY, "0"],
    &["GET", KEY],
    &["HGETALL", KEY],
    &["PTTL", KEY],
    &["MULTI"],
    &["EXEC"],
    &["EVAL", "return 1", "1", KEY],
    &["EVALSHA", "0", "1", KEY],
    &["SCRIPT", "LOAD", "return 1"],
    &["INFO"],
    &["DBSIZE"],
    &["TIME"],
];
/// What routes that compare versions need besides.
const NEWEST_COMMANDS: [&[&str]; 2] = [&["WATCH", KEY], &["UNWATCH"]];
/// What documents are written and read back with.
const DOCUMENT_COMMANDS: [&[&str]; 2] = [&["JSON.SET", KEY, "$", "{}"], &["JSON.GET", KEY]];
/// What keys of many rows need beside it.
const MANY_COMMANDS: [&[&str]; 4] =
    [&["UNLINK", KEY], &["PEXPIRE", KEY, "1"], &["PERSIST", KEY], &["RENAME", KEY, KEY]];
/// What each layout of many rows is written and read back with.
const SET_COMMANDS: [&[&str]; 4] =
    [&["SADD", KEY, "x"], &["SCARD", KEY], &["SMEMBERS", KEY], &["SSCAN", KEY, "0"]];
const ZSET_COMMANDS: [&[&str]; 3] =
    [&["ZADD", KEY, "0", "x"], &["ZCARD", KEY], &["ZRANGE", KEY, "0", "1"]];
const LIST_COMMANDS: [&[&str]; 3] =
    [&["RPUSH", KEY, "x"], &["LLEN", KEY], &["LRANGE", KEY, "0", "1"]];
const HASH_COMMANDS: [&[&str]; 2] = [&["HLEN", KEY], &["HSCAN", KEY, "0"]];
/// What streams need beside it, those that an earlier rebuild left included.
const STREAM_COMMANDS: [&[&str]; 5] = [
    &["XADD", KEY, "1-0", "f", "x"],
    &["XLEN", KEY],
    &["XRANGE", KEY, "-", "+"],
    &["TYPE", KEY],
    &["SCAN", "0"],
];
/// Where a command takes its key.
pub(super) const KEY: &str = "\0key";
/// The mark a run leaves.
pub(super) const SENTINEL: &str = stages::load::redis::SENTINEL_KEY;
/// A reply longer than this is none of those asked for.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    Text(String),
    Refused(String),
}

/// What a plan asks of the server beyond what every rebuild does.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The layouts of its keys of many rows, streams among them.
    pub(super) many: Vec<Layout>,
    /// Whether a route compares versions.
    pub(super) is_newest: bool,
    /// Whether a route writes documents, and the server has commands for them, whose rights it can tell.
    pub(super) is_document: bool,
}

/// The commands that a plan needs.
fn needed(needs: &Needs) -> Vec<&'static [&'static str]> {
    let layouts = &needs.many;
    let mut commands = COMMANDS.to_vec();
    if needs.is_newest {
        commands.extend(NEWEST_COMMANDS);
    }
    if needs.is_document {
        commands.extend(DOCUMENT_COMMANDS);
    }
    if !layouts.is_empty() {
        commands.extend(MANY_COMMANDS);
    }
    let of_layouts: [(Layout, &[&[&str]]); 5] = [
        (Layout::Set, &SET_COMMANDS),
        (Layout::Zset, &ZSET_COMMANDS),
        (Layout::List, &LIST_COMMANDS),
        (Layout::Hash, &HASH_COMMANDS),
        (Layout::Stream, &STREAM_COMMANDS),
    ];
    for (layout, of_layout) in of_layouts {
        if layouts.contains(&layout) {
            commands.extend(of_layout);
        }
    }
    commands
}

/// Asks for the role and the access rights to keys with these prefixes.
pub(super) async fn controls(
    stream: &mut dyn Stream,
    prefixes: &[&str],
    needs: &Needs,
    timeout: Duration,
) -> (Control, Control) {
    let asked = tokio::time::timeout(timeout, async {
        let role = role(stream).await?;
        Ok::<_, io::Error>((role, access(stream, prefixes, needs).await?))
    });
    let lost = match asked.await {
        Ok(Ok(controls)) => return controls,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", timeout.as_secs()),
    };
    (Control::unknown("redis role", lost.clone()), Control::unknown("redis access", lost))
}

async fn role(stream: &mut dyn Stream) -> io::Result<Control> {
    const NAME: &str = "redis role";
    let reply = ask(stream, &["INFO", "replication"]).await?;
    let Reply::Text(info) = reply else {
        return Ok(Control::unknown(NAME, "INFO replication is not answered"));
    };
    let role = info.lines().find_map(|line| line.trim_end().strip_prefix("role:"));
    Ok(match role {
        Some("master") => Control::ok(NAME, "primary"),
        Some(other) => Control::failed(NAME, format!("it is a {other}, which takes no writes"))
            .with_fix(Some("name the primary in [redis]")),
        None => Control::unknown(NAME, "the server does not tell"),
    })
}

/// Tells which way hashes would be written, as far as rights decide it.
///
/// A server that does not say leaves it to the trial, which needs no word of it beforehand.
pub(super) async fn way(stream: &mut dyn Stream, timeout: Duration) -> Control {
    const NAME: &str = "redis hashes";
    const TRIAL: &str = "a trial at the start of a run takes the faster of RESTORE and HSET";
    let asked = tokio::time::timeout(timeout, async {
        let Reply::Text(user) = ask(stream, &["ACL", "WHOAMI"]).await? else {
            return Ok(Control::ok(NAME, TRIAL));
        };
        let key = format!("{TRIAL_PREFIX}0");
        let words = ["ACL", "DRYRUN", &user, "RESTORE", &key, "0", "x", "REPLACE"];
        Ok::<_, io::Error>(match ask(stream, &words).await? {
            Reply::Text(answer) if answer != "OK" => Control::ok(
                NAME,
                format!(
                    "HSET: user {user} may not run RESTORE on {key}, which costs the server less"
                ),
            ),
            Reply::Text(_) | Reply::Refused(_) => Control::ok(NAME, TRIAL),
        })
    });
    match asked.await {
        Ok(Ok(control)) => control,
        Ok(Err(error)) => Control::unknown(NAME, error.to_string()),
        Err(_) => Control::unknown(NAME, format!("no answer within {} s", timeout.as_secs())),
    }
}

/// Tells whether `--cut-over` may be used, as far as rights decide it.
pub(super) async fn cut_over(stream: &mut dyn Stream, timeout: Duration) -> Control {
    const NAME: &str = "redis cut-over";
    const MAY: &str = "--cut-over DB may build in an empty database beside this one and swap them";
    let asked = tokio::time::timeout(timeout, async {
        let Reply::Text(user) = ask(stream, &["ACL", "WHOAMI"]).await? else {
            return Ok(Control::ok(
                NAME,
                "the server does not tell; a run with --cut-over tries it first",
            ));
        };
        let words = ["ACL", "DRYRUN", &user, "SWAPDB", "0", "1"];
        Ok::<_, io::Error>(match ask(stream, &words).await? {
            Reply::Text(answer) if answer == "OK" => Control::ok(NAME, MAY),
            Reply::Text(_) => Control::ok(
                NAME,
                format!(
                    "not to be had: user {user} may not run SWAPDB; a rebuild without it does not need it"
                ),
            ),
            Reply::Refused(why) => Control::ok(
                NAME,
                format!("the server does not tell ({why}); a run with --cut-over tries it first"),
            ),
        })
    });
    match asked.await {
        Ok(Ok(control)) => control,
        Ok(Err(error)) => Control::unknown(NAME, error.to_string()),
        Err(_) => Control::unknown(NAME, format!("no answer within {} s", timeout.as_secs())),
    }
}

async fn access(stream: &mut dyn Stream, prefixes: &[&str], needs: &Needs) -> io::Result<Control> {
    const NAME: &str = "redis access";
    let mut keys: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}0")).collect();
    keys.push(SENTINEL.to_owned());
    if !needs.many.is_empty() {
        keys.push(format!("{TEMPORARY_PREFIX}0"));
    }
    keys.sort();
    keys.dedup();
    let asked: Vec<Asked> =
        needed(needs).into_iter().map(|command| Asked { command, keys: keys.clone() }).collect();
    rights(stream, NAME, &asked, "a rebuild").await
}

/// A command, and the keys it is needed for; one without [`KEY`] is asked about once.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) command: &'static [&'static str],
    pub(super) keys: Vec<String>,
}

/// Tells whether the user may run all of these commands, which `purpose` needs.
pub(super) async fn rights(
    stream: &mut dyn Stream,
    name: &str,
    asked: &[Asked],
    purpose: &str,
) -> io::Result<Control> {
    let user = match ask(stream, &["ACL", "WHOAMI"]).await? {
        Reply::Text(user) => user,
        Reply::Refused(why) => {
            return Ok(Control::unknown(
                name,
                format!("the server does not tell the user's rights: {why}"),
            ));
        }
    };
    let mut denied = Vec::new();
    for Asked { command, keys } in asked {
        let is_keyed = command.contains(&KEY);
        let once = [String::new()];
        for key in if is_keyed { keys.as_slice() } else { &once } {
            let words = command.iter().map(|word| if *word == KEY { key.as_str() } else { *word });
            let words: Vec<&str> = ["ACL", "DRYRUN", &user].into_iter().chain(words).collect();
            match ask(stream, &words).await? {
                Reply::Text(answer) if answer == "OK" => {}
                Reply::Text(_) if is_keyed => denied.push(format!("{} on {key}", command[0])),
                Reply::Text(_) => denied.push(command[0].to_owned()),
                Reply::Refused(why) => {
                    let detail = format!(
                        "user {user}; the server does not answer ACL DRYRUN (7.0 and later do): {why}"
                    );
                    return Ok(Control::unknown(name, detail));
                }
            }
        }
    }
    Ok(verdict(name, &user, &denied, purpose))
}

fn verdict(name: &str, user: &str, denied: &[String], purpose: &str) -> Control {
    const SHOWN_MAX: usize = 8;
    if denied.is_empty() {
        return Control::ok(name, format!("user {user} may run every command {purpose} needs"));
    }
    let mut list = denied.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if denied.len() > SHOWN_MAX {
        list = format!("{list} and {} more", denied.len() - SHOWN_MAX);
    }
    Control::failed(name, format!("user {user} may not run {list}"))
        .with_fix(Some(&format!("grant them with ACL SETUSER {user}")))
}

/// Sends one command and reads its reply: a status, an error, a bulk string or a number.
async fn ask(stream: &mut dyn Stream, words: &[&str]) -> io::Result<Reply> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        write!(command, "${}\r\n{word}\r\n", word.len()).expect("writing to a string cannot fail");
    }
    stream.write_all(command.as_bytes()).await?;
    stream.flush().await?;
    let line = read_line(stream).await?;
    let (kind, rest) = line.split_at_checked(1).unwrap_or((&line, ""));
    match kind {
        "+" | ":" => Ok(Reply::Text(rest.to_owned())),
        "-" => Ok(Reply::Refused(rest.to_owned())),
        "$" => match rest.parse::<usize>() {
            Ok(length) if length <= REPLY_BYTES_MAX => {
                let mut body = vec![0; length + 2];
                stream.read_exact(&mut body).await?;
                body.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&body).into_owned()))
            }
            Ok(_) => Err(io::Error::other("a reply of redis is too long")),
            // A null.
            Err(_) => Ok(Reply::Text(String::new())),
        },
        _ => Err(io::Error::other("a reply of redis is not understood")),
    }
}

async fn read_line(stream: &mut dyn Stream) -> io::Result<String> {
    let mut line = Vec::with_capacity(64);
    while !line.ends_with(b"\r\n") {
        if line.len() > REPLY_BYTES_MAX {
            return Err(io::Error::other("a reply of redis is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::controls::Verdict;

    /// Answers each command with the next canned reply.
    async fn asked(replies: &[&str]) -> (Control, Control) {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(replies.concat().as_bytes()).await.unwrap();
        let needs = Needs { is_newest: true, ..Needs::default() };
        controls(&mut near, &["build:"], &needs, Duration::from_millis(200)).await
    }

    #[tokio::test]
    async fn a_user_with_every_right_is_fine() {
        let mut replies = vec!["$13\r\nrole:master\r\n\r\n", "$3\r\napp\r\n"];
        replies.extend(["+OK\r\n"; 40]);
        let (role, access) = asked(&replies).await;
        assert_eq!(
            (role.verdict, access.verdict),
            (Verdict::Ok, Verdict::Ok),
            "{role:?} {access:?}"
        );
    }

    #[tokio::test]
    async fn what_is_denied_is_named() {
        let denied = "+User app has no permissions to run the 'set' command\r\n";
        let mut replies = vec!["$12\r\nrole:slave\r\n\r\n", "$3\r\napp\r\n", denied];
        replies.extend(["+OK\r\n"; 40]);
        let (role, access) = asked(&replies).await;
        assert_eq!((role.verdict, access.verdict), (Verdict::Failed, Verdict::Failed));
        assert_eq!(access.detail, "user app may not run SET on build:0");
    }

    #[tokio::test]
    async fn the_way_of_hashes_is_told_by_the_rights() {
        for (replies, told) in [
            (vec!["$3\r\napp\r\n", "+OK\r\n"], "a trial"),
            (vec!["$3\r\napp\r\n", "+User app has no permissions\r\n"], "HSET: user app"),
            (vec!["$3\r\napp\r\n", "-ERR Unknown subcommand\r\n"], "a trial"),
            (vec!["-ERR unknown command\r\n"], "a trial"),
        ] {
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            far.write_all(replies.concat().as_bytes()).await.unwrap();
            let control = way(&mut near, Duration::from_millis(200)).await;
            assert!(
                control.verdict == Verdict::Ok && control.detail.starts_with(told),
                "{control:?}"
            );
        }
    }

    #[tokio::test]
    async fn whether_a_cut_over_may_be_had_is_told_by_the_rights() {
        for (replies, told) in [
            (vec!["$3\r\napp\r\n", "+OK\r\n"], "--cut-over DB may build"),
            (vec!["$3\r\napp\r\n", "+User app has no permissions\r\n"], "not to be had: user app"),
            (vec!["$3\r\napp\r\n", "-ERR Command 'swapdb' not found\r\n"], "the server does not"),
            (vec!["-ERR unknown command\r\n"], "the server does not"),
        ] {
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            far.write_all(replies.concat().as_bytes()).await.unwrap();
            let control = cut_over(&mut near, Duration::from_millis(200)).await;
            assert!(
                control.verdict == Verdict::Ok && control.detail.starts_with(told),
                "{control:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_older_server_leaves_it_unknown() {
        let (_, access) =
            asked(&["$13\r\nrole:master\r\n\r\n", "$3\r\napp\r\n", "-ERR Unknown subcommand\r\n"])
                .await;
        assert_eq!(access.verdict, Verdict::Unknown);
        let (role, access) = asked(&[]).await;
        assert_eq!((role.verdict, access.verdict), (Verdict::Unknown, Verdict::Unknown));
    }
}
