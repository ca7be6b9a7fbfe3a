//! How a failure is told: `error:`, `caused by:`, `hint:` for people, one JSON line for machines, all on stderr.
//!
//! Invariant: the text of a cause is printed once, however often the errors above it repeat it.

use crate::outcome::Exit;
use serde::Serialize;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write;

/// A failure ready to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    message_type: &'static str,
    /// The exit code of the command.
    code: u8,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Failure {
    /// Makes a failure without a cause.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            message_type: "error",
            code: exit.code(),
            message: message.into(),
            causes: Vec::new(),
            hint: hint.map(str::to_owned),
        }
    }

    /// Takes an error with its causes.
    pub(crate) fn of(exit: Exit, error: &(dyn Error + 'static), hint: Option<&str>) -> Self {
        let mut failure = Self::new(exit, error.to_string(), hint);
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            let is_told = failure.message.contains(&text)
                || failure.causes.iter().any(|earlier| earlier.contains(&text));
            if !is_told {
                failure.causes.push(text);
            }
            next = cause.source();
        }
        failure
    }

    /// Takes an error of a stage.
    pub(crate) fn of_stage(exit: Exit, error: &stages::Error) -> Self {
        Self::of(exit, error, error.hint())
    }

    /// Returns what failed, causes included, in one line.
    pub(crate) fn message(&self) -> String {
        self.causes.iter().fold(self.message.clone(), |text, cause| format!("{text}: {cause}"))
    }

    /// Returns what to type next.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the lines for people.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            push_line(&mut text, "caused by", cause);
        }
        if let Some(hint) = &self.hint {
            push_line(&mut text, "hint", hint);
        }
        text
    }
}

fn push_line(text: &mut String, label: &str, value: &str) {
    writeln!(text, "{label}: {value}").expect("writing to a string cannot fail");
}

/// Tells failures on stderr, with a JSON line each where `json` is asked for.
pub(crate) fn tell(failures: &[Failure], json: bool) {
    let mut text: String = failures.iter().map(Failure::render).collect();
    if json {
        for failure in failures {
            if let Ok(line) = serde_json::to_string(failure) {
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
    say(&text);
}

/// Writes to stderr. When even that is gone there is nobody left to tell.
pub(crate) fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err() {
        tracing::trace!("stderr is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stages::Kind;

    #[test]
    fn causes_that_say_nothing_new_are_left_out() {
        let root = std::io::Error::other("connection refused");
        let middle = stages::Error::new(Kind::Connection, "cannot connect: connection refused")
            .with_source(root);
        let error = stages::Error::new(Kind::Connection, "cannot read builds")
            .with_source(middle)
            .with_hint("rekindle check");
        let failure = Failure::of_stage(Exit::Unreachable, &error);
        insta::assert_snapshot!(failure.render(), @r"
        error: cannot read builds
        caused by: cannot connect: connection refused
        hint: rekindle check
        ");
        insta::assert_snapshot!(
            serde_json::to_string(&failure).unwrap(),
            @r#"{"message_type":"error","code":3,"message":"cannot read builds","causes":["cannot connect: connection refused"],"hint":"rekindle check"}"#
        );
    }

    #[test]
    fn a_failure_without_cause_is_one_line() {
        let failure =
            Failure::new(Exit::Usage, "rekindle.toml line 3: redis.url: must not be empty", None);
        assert_eq!(failure.render(), "error: rekindle.toml line 3: redis.url: must not be empty\n");
    }
}
