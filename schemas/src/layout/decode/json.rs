//! A cursor over one JSON text (RFC 8259) that gives numbers and embedded values as they are written.
//!
//! Invariant: nothing goes through a float or a tree; where a type is expected, depth is that of the type, and what is
//! passed over unread is passed over without recursion.

use serde::de::IgnoredAny;

/// What a malformed text is called, following the name of a column or `the value`.
pub(super) const NO_JSON: &str = "is no JSON";

#[derive(Debug)]
pub(in crate::layout) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte; fails where the text is not UTF-8.
    pub(in crate::layout) fn new(text: &'a [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8")?;
        Ok(Self { text, at: 0 })
    }

    /// Passes over white space and returns the next byte; 0 at the end, which no JSON text has.
    #[inline]
    pub(in crate::layout) fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return *byte;
            }
            self.at += 1;
        }
        0
    }

    /// Passes over `byte` if it comes next.
    #[inline]
    pub(in crate::layout) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    /// Passes over `byte`, which has to come next.
    #[inline]
    pub(in crate::layout) fn expect(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.eat(byte) { Ok(()) } else { Err(NO_JSON) }
    }

    /// Passes over `word` if it comes next.
    #[inline]
    pub(in crate::layout) fn eat_word(&mut self, word: &str) -> bool {
        self.peek();
        let is_next = self.text[self.at..].starts_with(word);
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    /// Fails unless only white space is left.
    pub(in crate::layout) fn end(&mut self) -> Result<(), &'static str> {
        self.peek();
        if self.at == self.text.len() { Ok(()) } else { Err(NO_JSON) }
    }

    /// Passes over the comma before the next element, or over the `close` behind the last one; returns whether there is
    /// an element.
    #[inline]
    pub(in crate::layout) fn next(
        &mut self,
        is_first: bool,
        close: u8,
    ) -> Result<bool, &'static str> {
        if self.eat(close) {
            // A comma was followed by an element, so this is no trailing one.
            return Ok(false);
        }
        if !is_first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// Reads a string; one with escapes is written out into `scratch`.
    #[inline]
    pub(in crate::layout) fn string<'s>(
        &mut self,
        scratch: &'s mut String,
    ) -> Result<&'s str, &'static str>
    where
        'a: 's,
    {
        self.expect(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut has_escape = false;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escape = true;
                    self.at += 2;
                }
                Some(0x20..) => self.at += 1,
                Some(..0x20) | None => return Err(NO_JSON),
            }
        }
        self.at += 1;
        if !has_escape {
            return Ok(&self.text[start..self.at - 1]);
        }
        *scratch = serde_json::from_str(&self.text[start - 1..self.at]).map_err(|_| NO_JSON)?;
        Ok(scratch)
    }

    /// Reads a number as it is written.
    #[inline]
    pub(in crate::layout) fn number(&mut self) -> Result<&'a [u8], &'static str> {
        self.peek();
        let bytes = &self.text.as_bytes()[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let end = bytes.iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len());
        let number = &bytes[..end];
        if !is_number(number) {
            return Err(NO_JSON);
        }
        self.at += end;
        Ok(number)
    }

    /// Passes over any value and returns it as it is written.
    pub(in crate::layout) fn value(&mut self) -> Result<&'a str, &'static str> {
        self.peek();
        let rest = &self.text[self.at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(NO_JSON),
        }
        let length = values.byte_offset();
        self.at += length;
        Ok(&rest[..length])
    }
}

/// Returns a member of a JSON object as it is written, the last where there are several; `None` where the text is no
/// object or has no such member.
pub(crate) fn member<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let mut cursor = Cursor::new(text).ok()?;
    let mut scratch = String::new();
    cursor.expect(b'{').ok()?;
    let (mut found, mut is_first) = (None, true);
    while cursor.next(is_first, b'}').ok()? {
        is_first = false;
        let is_it = cursor.string(&mut scratch).ok()? == name;
        cursor.expect(b':').ok()?;
        let value = cursor.value().ok()?;
        if is_it {
            found = Some(value);
        }
    }
    cursor.end().ok()?;
    found
}

/// `[-]int[.digits][e[sign]digits]`, without leading zeros.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> usize {
        text.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let [b'.', behind @ ..] = rest {
        let count = digits(behind);
        if count == 0 {
            return false;
        }
        rest = &behind[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'-' | b'+', exponent @ ..] => exponent,
            _ => exponent,
        };
        let count = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = &exponent[count..];
    }
    rest.is_empty()
}
