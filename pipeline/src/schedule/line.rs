//! The line of a crontab that runs a command: absolute paths, quoted for the shell and for cron.
//!
//! Invariant: the shell that cron starts gets exactly the words that were given.

use super::Cron;

/// Writes a word so that a shell takes it as it is.
pub fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty()
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:=,+@".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Writes the line. A percent sign is a new line to cron unless it is escaped, in quotes too; a line cannot be continued.
///
/// Returns what is wrong where a word cannot be written into a crontab.
pub fn crontab_line(cron: &Cron, words: &[String]) -> Result<String, String> {
    if let Some(word) = words.iter().find(|word| word.contains(['\n', '\r', '\0'])) {
        return Err(format!("{word:?} does not fit into one line of a crontab"));
    }
    let command: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    Ok(format!("{} {}", cron.text(), command.join(" ").replace('%', r"\%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell_and_for_cron() {
        let cron = Cron::parse("0  3 * * *").unwrap();
        let words =
            ["/opt/rekindle", "backup", "--plan", "/a b/it's.toml", "--on-problem", "date +%F"];
        let words = words.map(str::to_owned);
        assert_eq!(
            crontab_line(&cron, &words).unwrap(),
            r"0 3 * * * /opt/rekindle backup --plan '/a b/it'\''s.toml' --on-problem 'date +\%F'"
        );
        assert_eq!(quoted(""), "''");
        assert!(crontab_line(&cron, &["a\nb".to_owned()]).is_err());
    }
}
