//! Reply scanner: counts and classifies RESP2 replies without building values.
//!
//! Invariant: every top-level reply is reported exactly once, however the bytes are cut; a byte that is
//! not RESP is an error, never skipped. Format: the Redis serialization protocol specification (RESP2).

use crate::error::{Error, Kind, Result};

/// One top-level reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A simple string (`+OK`, `+QUEUED`) or a non-null bulk string.
    Text,
    /// An integer.
    Integer(i64),
    /// A null bulk string or null array.
    Null,
    /// An error, without its `-`.
    Error(String),
    /// An array; holds the first error inside it, if any.
    Array(Option<String>),
}

/// Nothing this product sends is answered by a longer line; more means that the bytes are not RESP.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Nothing this product sends is answered by arrays that nest deeper; without an end they would fill the memory.
const DEPTH_MAX: usize = 32;

/// Incremental scanner over a growing buffer.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Elements still missing in each open array, outermost first.
    open: Vec<i64>,
    /// Bytes of a bulk body (with its CRLF) still to skip.
    skip: usize,
    /// Bytes of an unfinished line that are known to hold no end of it, so that no byte is looked at twice.
    searched: usize,
    /// First error inside the open top-level array.
    nested_error: Option<String>,
}

impl Scanner {
    /// Scans `bytes`, calling `found` per complete top-level reply; returns how many bytes were consumed. What was
    /// not consumed has to stand at the beginning of the next call's bytes.
    pub(crate) fn scan(&mut self, bytes: &[u8], found: &mut dyn FnMut(Reply)) -> Result<usize> {
        let mut at = 0;
        loop {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len() - at);
                self.skip -= step;
                at += step;
                if self.skip > 0 {
                    return Ok(at);
                }
                self.complete(Reply::Text, found);
                continue;
            }
            let rest = &bytes[at..];
            let searched = std::mem::take(&mut self.searched);
            let end = rest.get(searched..).and_then(find_crlf).map(|end| searched + end);
            let Some(end) = end else {
                // One byte more may be the first of the line's end.
                if rest.len() > LINE_BYTES_MAX + 1 {
                    return Err(not_resp("a line has no end"));
                }
                self.searched = rest.len().saturating_sub(1);
                return Ok(at);
            };
            if end > LINE_BYTES_MAX {
                return Err(not_resp("a line has no end"));
            }
            let line = &rest[..end];
            at += end + 2;
            self.line(line, found)?;
        }
    }

    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(Reply)) -> Result<()> {
        let (&kind, body) = line.split_first().ok_or_else(|| not_resp("an empty line"))?;
        match kind {
            b'+' => self.complete(Reply::Text, found),
            b':' => self.complete(Reply::Integer(integer(body)?), found),
            b'-' => {
                self.complete(Reply::Error(String::from_utf8_lossy(body).into_owned()), found);
            }
            b'$' => match integer(body)? {
                -1 => self.complete(Reply::Null, found),
                length @ 0.. => {
                    self.skip = usize::try_from(length).map_err(|_| not_resp("a huge length"))? + 2;
                }
                _ => return Err(not_resp("a negative length")),
            },
            b'*' => match integer(body)? {
                -1 => self.complete(Reply::Null, found),
                0 => self.complete(Reply::Array(None), found),
                _ if self.open.len() == DEPTH_MAX => return Err(not_resp("arrays nest too deep")),
                length @ 1.. => self.open.push(length),
                _ => return Err(not_resp("a negative count")),
            },
            _ => return Err(not_resp("an unknown reply type")),
        }
        Ok(())
    }

    /// Closes one value: counts it in the array it belongs to, and reports what becomes complete.
    fn complete(&mut self, reply: Reply, found: &mut dyn FnMut(Reply)) {
        let mut reply = reply;
        loop {
            let Some(missing) = self.open.last_mut() else {
                found(reply);
                return;
            };
            if let Reply::Error(text) = &reply {
                self.nested_error.get_or_insert_with(|| text.clone());
            }
            *missing -= 1;
            if *missing > 0 {
                return;
            }
            self.open.pop();
            reply = if self.open.is_empty() {
                Reply::Array(self.nested_error.take())
            } else {
                Reply::Array(None)
            };
        }
    }
}

fn find_crlf(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n")
}

fn integer(body: &[u8]) -> Result<i64> {
    std::str::from_utf8(body)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| not_resp("a number that does not parse"))
}

fn not_resp(what: &str) -> Error {
    Error::new(Kind::Connection, format!("redis sent bytes that are no reply: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_in_steps(bytes: &[u8], step: usize) -> Vec<Reply> {
        let mut scanner = Scanner::default();
        let mut replies = Vec::new();
        let mut buffer = Vec::new();
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            let used = scanner.scan(&buffer, &mut |reply| replies.push(reply)).unwrap();
            buffer.drain(..used);
        }
        assert!(buffer.is_empty(), "unscanned bytes left");
        replies
    }

    #[test]
    fn every_reply_is_reported_once_however_the_bytes_are_cut() {
        let bytes = b"+OK\r\n:42\r\n$-1\r\n$5\r\na\r\nbc\r\n-OOM command not allowed\r\n\
            *3\r\n:1\r\n-ERR inner\r\n*2\r\n+a\r\n$0\r\n\r\n*-1\r\n*0\r\n";
        let expected = vec![
            Reply::Text,
            Reply::Integer(42),
            Reply::Null,
            Reply::Text,
            Reply::Error("OOM command not allowed".into()),
            Reply::Array(Some("ERR inner".into())),
            Reply::Null,
            Reply::Array(None),
        ];
        for step in 1..bytes.len() {
            assert_eq!(scan_in_steps(bytes, step), expected, "step {step}");
        }
    }

    #[test]
    fn bytes_that_are_no_reply_are_refused() {
        for bad in [
            &b"hello\r\n"[..],
            b"\r\n",
            b":x\r\n",
            b"$-2\r\n",
            b"*-7\r\n",
            b"$99999999999999999999\r\n",
        ] {
            let outcome = Scanner::default().scan(bad, &mut |_| ());
            assert_eq!(outcome.unwrap_err().kind(), Kind::Connection, "{bad:?}");
        }
    }
}
