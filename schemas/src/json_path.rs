//! Paths into a JSON column: a small part of RFC 9535 that names one value, and the value as it is written.
//!
//! Invariant: numbers, strings and their escapes are never rewritten; nothing is allocated per row but for a string or a
//! member name with escapes. What is read has been checked by its source, so a text that is no JSON is a fault of its row.

use std::fmt;

/// Names the one value that `$`, `.name`, `["name"]` and `[index]` lead to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Member(String),
    /// Counted from 0.
    Element(usize),
}

/// A text that is not JSON, or a string that is not Unicode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

impl JsonPath {
    /// Reads a path; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut rest = text.strip_prefix('$').ok_or("must begin with \"$\"")?;
        let mut steps = Vec::new();
        while let Some(first) = rest.chars().next() {
            let (step, after) = match first {
                '.' => member(&rest[1..])?,
                '[' => bracket(&rest[1..])?,
                _ => return Err("must go on with \".name\", [\"name\"] or [index]"),
            };
            steps.push(step);
            rest = after;
        }
        Ok(Self { steps })
    }

    /// Returns the bytes of the value that the path leads to; `None` where there is none or it is JSON's null.
    ///
    /// Of members with the same name the last one counts, as in `jsonb`.
    pub fn find<'a>(&self, json: &'a [u8]) -> Result<Option<&'a [u8]>, NotJson> {
        let mut value = trimmed(json);
        for step in &self.steps {
            let found = match (step, value.first()) {
                (Step::Member(name), Some(b'{')) => member_of(value, name)?,
                (Step::Element(index), Some(b'[')) => element_of(value, *index)?,
                (_, Some(_)) => None,
                (_, None) => return Err(NotJson),
            };
            match found {
                Some(found) => value = found,
                None => return Ok(None),
            }
        }
        Ok((value != b"null").then_some(value))
    }
}

/// The shortest way to write it.
impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.steps {
            match step {
                Step::Member(name) if is_plain(name) => write!(f, ".{name}")?,
                Step::Member(name) => write!(f, "[{}]", serde_json::Value::from(name.as_str()))?,
                Step::Element(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

fn member(rest: &str) -> Result<(Step, &str), &'static str> {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    if is_plain(name) {
        Ok((Step::Member(name.to_owned()), after))
    } else {
        Err("has a name that must be written as [\"name\"]")
    }
}

fn bracket(rest: &str) -> Result<(Step, &str), &'static str> {
    const OPEN: &str = "has a \"[\" that is not closed";
    if rest.starts_with('"') {
        let end = string_end(rest.as_bytes(), 0).map_err(|NotJson| OPEN)?;
        let name = serde_json::from_str(&rest[..end])
            .map_err(|_| "has a name that is not a JSON string")?;
        let after = rest[end..].strip_prefix(']').ok_or(OPEN)?;
        return Ok((Step::Member(name), after));
    }
    let (index, after) = rest.split_once(']').ok_or(OPEN)?;
    let is_index = index == "0"
        || (!index.starts_with('0') && index.bytes().all(|byte| byte.is_ascii_digit()));
    match index.parse::<u32>() {
        Ok(index) if is_index => Ok((Step::Element(index as usize), after)),
        _ => Err("has brackets around neither a name such as [\"name\"] nor an index such as [0]"),
    }
}

/// Appends the text of a value: a string without quotes and escapes, anything else as [`write_compact`] does.
pub fn write_text(value: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
    match value {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => out.extend_from_slice(inner),
        [b'"', ..] => {
            let text: String = serde_json::from_slice(value).map_err(|_| NotJson)?;
            out.extend_from_slice(text.as_bytes());
        }
        _ => return write_compact(value, out),
    }
    Ok(())
}

/// Appends a value as it is written, without the white space between its parts.
pub fn write_compact(value: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        if *byte == b'"' {
            let end = string_end(value, at)?;
            out.extend_from_slice(&value[at..end]);
            at = end;
            continue;
        }
        if !is_space(*byte) {
            out.push(*byte);
        }
        at += 1;
    }
    Ok(())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn trimmed(json: &[u8]) -> &[u8] {
    json.trim_ascii()
}

fn member_of<'a>(object: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, NotJson> {
    let mut found = None;
    let mut at = after_space(object, 1);
    while object.get(at) != Some(&b'}') {
        let end = string_end(object, at)?;
        let is_wanted = is_name(&object[at..end], name);
        at = after_space(object, end);
        if object.get(at) != Some(&b':') {
            return Err(NotJson);
        }
        at = after_space(object, at + 1);
        let end = value_end(object, at)?;
        if is_wanted {
            found = Some(&object[at..end]);
        }
        at = after_comma(object, end, b'}')?;
    }
    Ok(found)
}

fn element_of(array: &[u8], wanted: usize) -> Result<Option<&[u8]>, NotJson> {
    let mut at = after_space(array, 1);
    let mut index = 0;
    while array.get(at) != Some(&b']') {
        let end = value_end(array, at)?;
        if index == wanted {
            return Ok(Some(&array[at..end]));
        }
        index += 1;
        at = after_comma(array, end, b']')?;
    }
    Ok(None)
}

/// Whether a string with its quotes is `name`.
fn is_name(string: &[u8], name: &str) -> bool {
    let inner = &string[1..string.len() - 1];
    if !inner.contains(&b'\\') {
        return inner == name.as_bytes();
    }
    // A name that is no Unicode is not the one of a path.
    serde_json::from_slice::<String>(string).is_ok_and(|text| text == name)
}

fn after_space(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(|byte| is_space(*byte)) {
        at += 1;
    }
    at
}

/// Passes over the comma between two parts; at the end it stays on `close`.
fn after_comma(json: &[u8], at: usize, close: u8) -> Result<usize, NotJson> {
    let at = after_space(json, at);
    match json.get(at) {
        Some(b',') => Ok(after_space(json, at + 1)),
        Some(byte) if *byte == close => Ok(at),
        _ => Err(NotJson),
    }
}

/// Returns where the string that begins at `at` ends, its quote included.
fn string_end(json: &[u8], at: usize) -> Result<usize, NotJson> {
    if json.get(at) != Some(&b'"') {
        return Err(NotJson);
    }
    let mut at = at + 1;
    loop {
        match json.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(NotJson),
        }
    }
}

/// Returns where the value that begins at `at` ends; nested ones are counted, not descended into.
fn value_end(json: &[u8], mut at: usize) -> Result<usize, NotJson> {
    let mut depth = 0_usize;
    loop {
        match json.get(at) {
            Some(b'"') => at = string_end(json, at)?,
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
                continue;
            }
            Some(b'}' | b']') => {
                depth = depth.checked_sub(1).ok_or(NotJson)?;
                at += 1;
            }
            Some(b',' | b':') if depth > 0 => {
                at += 1;
                continue;
            }
            Some(byte) if is_space(*byte) && depth > 0 => {
                at += 1;
                continue;
            }
            Some(_) => {
                let is_scalar = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let length = json[at..].iter().take_while(|byte| is_scalar(byte)).count();
                if length == 0 {
                    return Err(NotJson);
                }
                at += length;
            }
            None => return Err(NotJson),
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

#[cfg(test)]
mod tests;
