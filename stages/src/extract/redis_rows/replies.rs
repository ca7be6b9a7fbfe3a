//! Reads RESP2 replies where they lie: no copy, no value per element.
//!
//! Invariant: bytes that are no reply are an error, never skipped. Format: the Redis serialization protocol (RESP2).

use crate::error::{Error, Kind, Result};

/// One token of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A null.
    Null,
    /// A simple or bulk string.
    Text(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// An error, without its `-`.
    Error(&'a [u8]),
    /// So many replies follow and belong to it.
    Array(usize),
}

/// The shortest reply is a kind and the end of its line.
const REPLY_BYTES_MIN: usize = 3;

/// A cursor over the replies of a page.
#[derive(Debug, Clone)]
pub struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    /// Starts at the first reply.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes that were not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the next token.
    #[inline]
    pub fn token(&mut self) -> Result<Reply<'a>> {
        let (kind, number) = match self.rest.first() {
            Some(b'+' | b'-') => return self.line(),
            Some(kind) => (*kind, self.number()?),
            None => return Err(torn()),
        };
        match (kind, number) {
            (b':', number) => Ok(Reply::Integer(number)),
            (b'$' | b'*', -1) => Ok(Reply::Null),
            (b'*', count) => {
                // What reads them makes room for so many.
                let most = self.rest.len() / REPLY_BYTES_MIN;
                let count = usize::try_from(count).ok().filter(|count| *count <= most);
                count.map(Reply::Array).ok_or_else(torn)
            }
            (b'$', length) => {
                let length = usize::try_from(length).map_err(|_| torn())?;
                let text = self.rest.get(..length).ok_or_else(torn)?;
                self.rest = self.rest.get(length + 2..).ok_or_else(torn)?;
                Ok(Reply::Text(text))
            }
            _ => Err(torn()),
        }
    }

    /// Reads past one whole reply.
    pub fn skip(&mut self) -> Result<()> {
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            if let Reply::Array(count) = self.token()? {
                left = left.checked_add(count).ok_or_else(torn)?;
            }
        }
        Ok(())
    }

    /// Reads one whole reply and returns its bytes.
    pub fn whole(&mut self) -> Result<&'a [u8]> {
        let before = self.rest;
        self.skip()?;
        Ok(&before[..before.len() - self.rest.len()])
    }

    fn line(&mut self) -> Result<Reply<'a>> {
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n").ok_or_else(torn)?;
        let (line, rest) = (&self.rest[..end], &self.rest[end + 2..]);
        self.rest = rest;
        Ok(if line[0] == b'+' { Reply::Text(&line[1..]) } else { Reply::Error(&line[1..]) })
    }

    /// Reads the number behind the kind, and the end of the line.
    #[inline]
    fn number(&mut self) -> Result<i64> {
        let mut at = 1;
        let is_negative = self.rest.get(1) == Some(&b'-');
        at += usize::from(is_negative);
        let mut number: i64 = 0;
        loop {
            match self.rest.get(at) {
                Some(digit @ b'0'..=b'9') => {
                    let digit = i64::from(digit - b'0');
                    let shifted = number.checked_mul(10).ok_or_else(torn)?;
                    number = shifted.checked_sub(digit).ok_or_else(torn)?;
                }
                Some(b'\r') if self.rest.get(at + 1) == Some(&b'\n') => break,
                _ => return Err(torn()),
            }
            at += 1;
        }
        self.rest = &self.rest[at + 2..];
        // Digits were taken away, because the least number has no positive counterpart.
        if is_negative { Ok(number) } else { number.checked_neg().ok_or_else(torn) }
    }
}

fn torn() -> Error {
    Error::new(Kind::Connection, "redis sent bytes that are no reply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_in_order_and_whole_replies_can_be_passed_over() {
        let bytes = b"*2\r\n$1\r\na\r\n*1\r\n:-5\r\n$-1\r\n*0\r\n-WRONGTYPE x\r\n+OK\r\n";
        let mut replies = Replies::new(bytes);
        let mut passed = replies.clone();
        let found: Vec<Reply<'_>> = (0..8).map(|_| replies.token().unwrap()).collect();
        let text = |text: &'static str| Reply::Text(text.as_bytes());
        assert_eq!(found[..4], [Reply::Array(2), text("a"), Reply::Array(1), Reply::Integer(-5)]);
        let error = Reply::Error(b"WRONGTYPE x");
        assert_eq!(found[4..], [Reply::Null, Reply::Array(0), error, text("OK")]);
        assert!(replies.is_empty());
        assert_eq!(passed.whole().unwrap(), b"*2\r\n$1\r\na\r\n*1\r\n:-5\r\n");
        assert_eq!(passed.token().unwrap(), Reply::Null);
    }

    #[test]
    fn torn_bytes_are_an_error() {
        for bytes in [&b""[..], b"$3\r\nab", b"*1\r\n", b"!1\r\n", b":x\r\n", b"$9", b"+OK"] {
            assert!(Replies::new(bytes).skip().is_err(), "{bytes:?}");
        }
        let least = format!(":{}\r\n", i64::MIN);
        assert_eq!(Replies::new(least.as_bytes()).token().unwrap(), Reply::Integer(i64::MIN));
    }
}
