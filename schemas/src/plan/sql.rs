//! Keeps an SQL text of a plan inside the statement it is put into.
//!
//! Invariant: a text that passes is one balanced piece: no unquoted `;`, nothing left open at its end, no
//! parenthesis closed that it did not open. Read as the source does with `standard_conforming_strings` on.

type Found<T> = Result<T, &'static str>;

/// Returns why a text is not one self-contained piece of SQL, if so.
pub(super) fn problem(sql: &str) -> Option<&'static str> {
    if sql.trim().is_empty() {
        return Some("must not be empty");
    }
    scan(sql.as_bytes()).err()
}

fn scan(sql: &[u8]) -> Found<()> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = sql.get(at) {
        at = match byte {
            b';' => return Err("must be one statement: it has an unquoted \";\""),
            b'\'' | b'"' => after_quoted(sql, at, false)?,
            b'-' if sql.get(at + 1) == Some(&b'-') => after_line_comment(sql, at)?,
            b'/' if sql.get(at + 1) == Some(&b'*') => after_block_comment(sql, at)?,
            b'$' => after_dollar(sql, at)?,
            b'(' => {
                depth += 1;
                at + 1
            }
            b')' => {
                depth = depth.checked_sub(1).ok_or("closes a parenthesis that it did not open")?;
                at + 1
            }
            _ if starts_word(byte) => after_word(sql, at)?,
            _ => at + 1,
        };
    }
    if depth > 0 { Err("leaves a parenthesis open") } else { Ok(()) }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Skips a keyword or identifier, and the literal after it where it is the `E` of `E'…'`.
fn after_word(sql: &[u8], start: usize) -> Found<usize> {
    let length = sql[start..].iter().take_while(|b| continues_word(**b)).count();
    let end = start + length;
    if sql.get(end) != Some(&b'\'') || !sql[start..end].eq_ignore_ascii_case(b"e") {
        return Ok(end);
    }
    let mut at = after_quoted(sql, end, true)?;
    // Literals on following lines continue this one, with its backslashes.
    loop {
        let blank = sql[at..].iter().take_while(|b| b.is_ascii_whitespace() || **b == 0x0B).count();
        if sql.get(at + blank) != Some(&b'\'') {
            return Ok(at);
        }
        at = after_quoted(sql, at + blank, true)?;
    }
}

/// Skips `'…'` or `"…"`; a doubled quote reads as the end of one and the start of the next.
fn after_quoted(sql: &[u8], start: usize, has_backslashes: bool) -> Found<usize> {
    let quote = sql[start];
    let mut at = start + 1;
    while let Some(&byte) = sql.get(at) {
        at += 1;
        if byte == b'\\' && has_backslashes {
            at += 1;
        } else if byte == quote {
            if sql.get(at) != Some(&quote) {
                return Ok(at);
            }
            at += 1;
        }
    }
    Err("leaves a quote open")
}

fn after_line_comment(sql: &[u8], start: usize) -> Found<usize> {
    sql[start..]
        .iter()
        .position(|b| matches!(b, b'\n' | b'\r'))
        .map(|length| start + length)
        .ok_or("ends in a -- comment, which would hide what is put after it; end it with a newline")
}

/// Skips a block comment; they nest.
fn after_block_comment(sql: &[u8], start: usize) -> Found<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    while at < sql.len() {
        let pair = sql.get(at..at + 2).unwrap_or_default();
        at += match pair {
            b"/*" => {
                depth += 1;
                2
            }
            b"*/" => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            return Ok(at);
        }
    }
    Err("leaves a comment open")
}

/// Skips `$tag$…$tag$`, or one `$` that opens no such literal (`$1`).
fn after_dollar(sql: &[u8], start: usize) -> Found<usize> {
    let name = &sql[start + 1..];
    let length = name.iter().take_while(|b| continues_word(**b) && **b != b'$').count();
    let is_tag = name.get(length) == Some(&b'$') && !name[0].is_ascii_digit();
    if !is_tag {
        return Ok(start + 1);
    }
    let tag = &sql[start..start + length + 2];
    let body = start + tag.len();
    sql[body..]
        .windows(tag.len())
        .position(|window| window == tag)
        .map(|found| body + found + tag.len())
        .ok_or("leaves a dollar quote open")
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn one_piece_of_sql_passes() {
        for sql in [
            "status <> 'deleted'",
            "a = ';' and \"b;\" = 'it''s;'",
            "a = E'\\';' and b = e'x;'",
            "a = E'x'\n 'y\\';'",
            "a = $$;$$ or b = $q$ ; $$ $q$ or c = $1",
            "a$$b = 1",
            "a = 1 /* ; /* ; */ ; */ and b = 2",
            "a = 1 -- ;\n",
            "a in (select (1))",
            "a = U&'d\\0061t;'",
            "größe = ')'",
        ] {
            assert_eq!(problem(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_could_escape_its_statement_is_refused() {
        for (sql, word) in [
            ("", "empty"),
            (" \n", "empty"),
            ("a; drop table b", "unquoted"),
            ("select 1;", "unquoted"),
            ("a = 'x\\'; --'\n", "unquoted"),
            ("a = E'' '\\'' ; '", "unquoted"),
            ("a = se'\\'; --'\n", "unquoted"),
            ("a = $1;$1", "unquoted"),
            ("a$$;$$", "unquoted"),
            ("-- x\r;", "unquoted"),
            ("/* /* */ ;", "comment"),
            ("a /", "nothing"),
            ("a = 'x", "quote"),
            ("\"a", "quote"),
            ("a = E'\\'", "quote"),
            ("$$ $", "dollar"),
            ("a -- b", "-- comment"),
            ("a) or (b", "did not open"),
            ("(a", "open"),
        ] {
            match problem(sql) {
                Some(message) => assert!(message.contains(word), "{sql}: {message}"),
                None => assert_eq!(word, "nothing", "{sql}"),
            }
        }
    }
}
