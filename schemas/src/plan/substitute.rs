//! `${env:NAME}` and `${file:PATH}` inside the strings of a plan.
//!
//! Invariant: what is put in is never scanned again and never part of a message.

/// Looks up an environment variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;
/// Reads a whole text file.
pub(super) type ReadFile<'a> = &'a dyn Fn(&str) -> std::io::Result<String>;

/// A string after substitution.
#[derive(Clone)]
pub(super) struct Expanded {
    pub(super) value: String,
    /// Whether any part of the value came from outside the file, so that it must not be shown.
    pub(super) is_substituted: bool,
}

/// Replaces every `${…}` of a string; `$${` stands for a literal `${`. All mistakes are returned.
pub(super) fn expand(
    text: &str,
    lookup: Lookup<'_>,
    read_file: ReadFile<'_>,
) -> Result<Expanded, Vec<String>> {
    let mut value = String::with_capacity(text.len());
    let mut is_substituted = false;
    let mut mistakes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            value.push_str(before);
            value.push_str("${");
            rest = after;
            continue;
        }
        value.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            mistakes.push("\"${\" is not closed; write \"$${\" for a literal \"${\"".to_owned());
            rest = "";
            break;
        };
        match fetch(name, lookup, read_file) {
            Ok(fetched) => value.push_str(&fetched),
            Err(mistake) => mistakes.push(mistake),
        }
        is_substituted = true;
        rest = after;
    }
    value.push_str(rest);
    if mistakes.is_empty() { Ok(Expanded { value, is_substituted }) } else { Err(mistakes) }
}

fn fetch(name: &str, lookup: Lookup<'_>, read_file: ReadFile<'_>) -> Result<String, String> {
    if let Some(variable) = name.strip_prefix("env:").filter(|v| !v.is_empty()) {
        return lookup(variable)
            .ok_or_else(|| format!("environment variable {variable:?} is not set"));
    }
    if let Some(path) = name.strip_prefix("file:").filter(|p| !p.is_empty()) {
        let mut text =
            read_file(path).map_err(|e| format!("cannot read file {path:?}: {}", e.kind()))?;
        // An editor or `echo` ends a file with a newline that belongs to no secret.
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        return Ok(text);
    }
    Err(format!(
        "unknown substitution {:?}, expected \"${{env:NAME}}\" or \"${{file:PATH}}\"; write \"$${{\" for a literal \"${{\"",
        format!("${{{name}}}")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    fn expanded(text: &str) -> Result<(String, bool), Vec<String>> {
        let lookup = |name: &str| (name == "A").then(|| "${env:A}1".to_owned());
        let read_file = |path: &str| match path {
            "/unix" => Ok("u\n".to_owned()),
            "/dos" => Ok("d\r\n".to_owned()),
            "/two" => Ok("t\n\n".to_owned()),
            _ => Err(Error::from(ErrorKind::NotFound)),
        };
        expand(text, &lookup, &read_file).map(|e| (e.value, e.is_substituted))
    }

    #[test]
    fn variables_and_files_are_put_in_once() {
        assert_eq!(expanded("x${env:A}y"), Ok(("x${env:A}1y".into(), true)));
        assert_eq!(expanded("${file:/unix}${file:/dos}"), Ok(("ud".into(), true)));
        assert_eq!(expanded("${file:/two}"), Ok(("t\n".into(), true)));
        assert_eq!(expanded("{id} $ $$ }"), Ok(("{id} $ $$ }".into(), false)));
    }

    #[test]
    fn a_doubled_dollar_is_literal() {
        assert_eq!(expanded("$${env:A}"), Ok(("${env:A}".into(), false)));
        assert_eq!(expanded("$${${env:A}"), Ok(("${${env:A}1".into(), true)));
    }

    #[test]
    fn every_mistake_of_a_string_is_named() {
        let mistakes = expanded("${env:B}${file:/none}${id}${env:}${").unwrap_err();
        assert_eq!(mistakes.len(), 5);
        assert_eq!(mistakes[0], "environment variable \"B\" is not set");
        assert_eq!(mistakes[1], "cannot read file \"/none\": entity not found");
        assert!(mistakes[2].starts_with("unknown substitution \"${id}\", expected"));
        assert!(mistakes[3].starts_with("unknown substitution \"${env:}\""));
        assert!(mistakes[4].starts_with("\"${\" is not closed"));
    }
}
