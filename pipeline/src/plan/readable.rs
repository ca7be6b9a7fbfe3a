//! Commands in RESP as a person reads them: words apart, quoted as `redis-cli` does.
//!
//! Invariant: what `readable` quotes, `redis-cli` reads as the same bytes, unless a word was cut, which says so.

use stages::{Error, Kind, Result};
use std::fmt::Write as _;

/// A word is shown up to this many bytes.
const WORD_BYTES_MAX: usize = 400;

/// Takes commands apart: arrays of bulk strings, one behind the other.
pub(crate) fn commands(payload: &[u8]) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut rest = payload;
    let mut commands = Vec::new();
    while !rest.is_empty() {
        let words = head(&mut rest, b'*')?;
        let mut command = Vec::with_capacity(words.min(1024));
        for _ in 0..words {
            let length = head(&mut rest, b'$')?;
            let word = rest.get(..length).ok_or_else(broken)?;
            rest = rest[length..].strip_prefix(b"\r\n").ok_or_else(broken)?;
            command.push(word.to_vec());
        }
        commands.push(command);
    }
    Ok(commands)
}

/// Reads a mark, a number and the end of the line.
fn head(rest: &mut &[u8], mark: u8) -> Result<usize> {
    let line = rest.strip_prefix(&[mark]).ok_or_else(broken)?;
    let end = line.windows(2).position(|pair| pair == b"\r\n").ok_or_else(broken)?;
    let number = str::from_utf8(&line[..end]).ok().and_then(|text| text.parse().ok());
    *rest = &line[end + 2..];
    number.ok_or_else(broken)
}

fn broken() -> Error {
    Error::new(Kind::Internal, "the commands of a sampled row cannot be read back")
}

/// Returns a command on one line.
pub(super) fn readable(command: &[Vec<u8>]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

fn quoted(word: &[u8]) -> String {
    let is_cut = word.len() > WORD_BYTES_MAX;
    let shown = &word[..word.len().min(WORD_BYTES_MAX)];
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\".contains(byte);
    let is_text = str::from_utf8(word)
        .is_ok_and(|text| text.chars().all(|c| is_plain_character(c) && !c.is_whitespace()));
    if !word.is_empty() && !is_cut && (word.iter().all(is_plain) || is_text) {
        return String::from_utf8_lossy(word).into_owned();
    }
    let mut text = String::from("\"");
    for chunk in shown.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_escaped(c, &mut text));
        chunk.invalid().iter().for_each(|byte| push_byte(*byte, &mut text));
    }
    text.push('"');
    if is_cut {
        text.push_str("… (");
        text.push_str(&word.len().to_string());
        text.push_str(" bytes)");
    }
    text
}

fn is_plain_character(c: char) -> bool {
    !c.is_control() && !"\"'\\".contains(c)
}

fn push_escaped(c: char, out: &mut String) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c.is_control() => {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(byte, out));
        }
        c => out.push(c),
    }
}

fn push_byte(byte: u8, out: &mut String) {
    write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
}

/// Returns a word as text; bytes that are none become `\x…`.
pub(super) fn unquoted(word: &[u8]) -> String {
    let mut text = String::new();
    for chunk in word.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| push_byte(*byte, &mut text));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_apart_and_quoted() {
        let payload =
            "*3\r\n$3\r\nSET\r\n$3\r\na:1\r\n$7\r\nx\"y\r\nz \r\n*1\r\n$4\r\nEXEC\r\n".as_bytes();
        let found = commands(payload).unwrap();
        let lines: Vec<String> = found.iter().map(|command| readable(command)).collect();
        assert_eq!(lines, ["SET a:1 \"x\\\"y\\r\\nz \"", "EXEC"]);
        assert_eq!(quoted(b""), "\"\"");
        assert_eq!(quoted("größe".as_bytes()), "größe");
        assert_eq!(quoted(b"\xff\x00"), "\"\\xff\\x00\"");
        assert_eq!(unquoted(b"a\xff"), "a\\xff");
        assert!(quoted(&[b'x'; 1000]).ends_with("x\"… (1000 bytes)"));
    }

    #[test]
    fn broken_payloads_are_errors() {
        for payload in
            ["*", "*1\r\n", "*1\r\n$5\r\nab\r\n", "$1\r\na\r\n", "*x\r\n", "*1\r\n$2\r\nabc"]
        {
            assert!(commands(payload.as_bytes()).is_err(), "{payload:?}");
        }
    }
}
