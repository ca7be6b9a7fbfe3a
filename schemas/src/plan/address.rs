//! Addresses in URLs: what is accepted, and how one is shown.
//!
//! Invariant: no message and no redacted form holds a password, however badly the URL is written.

/// Schemes that may be shown; anything else in front of a colon could be part of a secret.
const KNOWN_SCHEMES: [&str; 10] = [
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "redis+cluster",
    "rediss+cluster",
    "gs",
    "file",
    "http",
    "https",
];
const HIDDEN: &str = "***";

/// Returns a URL without its secrets: scheme, user, host, port, path and harmless parameters are kept.
///
/// Where it is unclear what a part is, it is hidden.
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return HIDDEN.to_owned() };
    if !KNOWN_SCHEMES.contains(&scheme) {
        return HIDDEN.to_owned();
    }
    // The last `@` ends the user part, so that an unescaped `/`, `?` or `@` of a password is not taken for a host.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (redact_user(scheme, user), rest),
        None => (String::new(), rest),
    };
    let (rest, fragment) = split_before(rest, '#');
    let (rest, query) = split_before(rest, '?');
    let (host, path) = split_before(rest, '/');
    let host = if looks_like_host(host) { host } else { HIDDEN };
    let fragment = match fragment {
        "" | "#insecure" => fragment.to_owned(),
        _ => format!("#{HIDDEN}"),
    };
    format!("{scheme}://{user}{host}{path}{}{fragment}", redact_query(query))
}

/// Splits in front of the first `mark`, which stays with the second part.
fn split_before(text: &str, mark: char) -> (&str, &str) {
    text.split_at(text.find(mark).unwrap_or(text.len()))
}

fn redact_user(scheme: &str, user: &str) -> String {
    match user.split_once(':') {
        Some((name, _)) if is_plain(name) => format!("{name}:{HIDDEN}@"),
        // Redis has no user without a password: a lone word there is a password in the wrong place.
        None if !scheme.starts_with("redis") && is_plain(user) => format!("{user}@"),
        _ => format!("{HIDDEN}@"),
    }
}

fn is_plain(name: &str) -> bool {
    !name.contains(['/', '?', '#', '@', '[', ']']) && !name.contains(char::is_whitespace)
}

fn looks_like_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    let is_host_character = |c: char| c.is_ascii_alphanumeric() || "-._%[]:".contains(c);
    host.chars().all(is_host_character)
        && port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

/// Splits `host:port`; the colons of an IPv6 address stand in brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn redact_query(query: &str) -> String {
    let Some(parameters) = query.strip_prefix('?') else { return String::new() };
    let redacted: Vec<String> = parameters.split('&').map(redact_parameter).collect();
    format!("?{}", redacted.join("&"))
}

fn redact_parameter(parameter: &str) -> String {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    // A percent sign in a name could hide a word like `password`; no client needs one there.
    let lower = name.to_ascii_lowercase();
    let is_secret = ["pass", "secret", "key", "token", "%"].iter().any(|word| lower.contains(word));
    match (is_secret, name.len() == parameter.len()) {
        (true, false) => format!("{name}={HIDDEN}"),
        // A word without a value is no parameter of any client, so it may be the tail of a password.
        (_, true) if !parameter.is_empty() => HIDDEN.to_owned(),
        _ => parameter.to_owned(),
    }
}

/// Returns what is wrong with the source's URL, if anything.
pub(super) fn alloydb_problem(url: &str) -> Option<&'static str> {
    let Some(rest) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))
    else {
        return Some("must start with postgres:// or postgresql://");
    };
    let (rest, query) = split_before(rest, '?');
    let names_host = query.contains("host=") || query.contains("hostaddr=");
    endpoint_problem(rest, !names_host).or_else(|| has_blank(url).then_some(BLANK))
}

/// Returns what is wrong with a Redis URL, if anything.
pub(super) fn redis_problem(url: &str) -> Option<&'static str> {
    if url.starts_with("redis+cluster://") || url.starts_with("rediss+cluster://") {
        return Some("redis+cluster:// is not built yet");
    }
    let Some(rest) = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://")) else {
        return Some("must start with redis:// or rediss://");
    };
    let (rest, _) = split_before(rest, '?');
    let (_, path) = split_before(rest, '/');
    let database = path.strip_prefix('/').unwrap_or_default();
    let has_database = database.is_empty() || database.parse::<u32>().is_ok();
    endpoint_problem(rest, true)
        .or_else(|| has_blank(url).then_some(BLANK))
        .or_else(|| (!has_database).then_some("the database after the host must be a number"))
}

const BLANK: &str = "must not contain a blank or a control character";

fn has_blank(url: &str) -> bool {
    url.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Checks `user:password@host:port/database`.
fn endpoint_problem(rest: &str, needs_host: bool) -> Option<&'static str> {
    let (rest, _) = split_before(rest, '#');
    let (authority, path) = split_before(rest, '/');
    if path.contains('@') {
        return Some("the user or password has a character that must be percent-encoded");
    }
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    if address.contains(',') {
        return Some("several hosts are not supported");
    }
    let (host, port) = split_port(address);
    if host.is_empty() && needs_host {
        return Some("names no host");
    }
    let has_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0));
    (!has_port).then_some("the port must be a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_secret_stays_readable() {
        for (url, shown) in [
            ("postgres://u:pw@h:5432/db", "postgres://u:***@h:5432/db"),
            ("postgresql://u@h/db?sslmode=require", "postgresql://u@h/db?sslmode=require"),
            (
                "postgres://h/db?password=pw&sslmode=prefer&sslpassword=pw",
                "postgres://h/db?password=***&sslmode=prefer&sslpassword=***",
            ),
            ("redis://:pw@h:6379/2", "redis://:***@h:6379/2"),
            ("rediss://u:pw@[::1]:6379/0#insecure", "rediss://u:***@[::1]:6379/0#insecure"),
            ("redis://127.0.0.1", "redis://127.0.0.1"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }

    #[test]
    fn a_badly_written_url_hides_more_rather_than_less() {
        for url in [
            "pw",
            "pw:pw@host",
            "pw://host",
            "redis://pw@host",
            "redis://u:pw/pw@host",
            "redis://u:pw?pw@host",
            "redis://u:pw#pw@pw@host",
            "redis://pw/pw@host",
            "redis://:pw",
            "redis://host#pw",
            "redis://host?pw",
            "postgres://h/db?pass%77ord=pw",
            "postgres://h/db?PASSWORD=pw",
        ] {
            assert!(!redact_url(url).contains("pw"), "{url} -> {}", redact_url(url));
        }
    }

    #[test]
    fn only_addresses_that_can_be_connected_to_are_accepted() {
        for url in ["postgres://h", "postgresql://u:p@h:1/d?x=a@b", "postgres:///d?host=/tmp"] {
            assert_eq!(alloydb_problem(url), None, "{url}");
        }
        for (url, word) in [
            ("mysql://h", "start with"),
            ("postgres:h", "start with"),
            ("postgres:///d", "no host"),
            ("postgres://h:0/d", "port"),
            ("postgres://h1,h2/d", "several"),
            ("postgres://h/d\n", "blank"),
        ] {
            assert!(alloydb_problem(url).is_some_and(|m| m.contains(word)), "{url}");
        }
        for url in ["redis://h", "rediss://u:p@h:6380/3?protocol=resp3", "redis://[::1]:1/"] {
            assert_eq!(redis_problem(url), None, "{url}");
        }
        for (url, word) in [
            ("unix:///tmp/redis.sock", "start with"),
            ("redis+cluster://h", "not built yet"),
            ("redis://", "no host"),
            ("redis://h:99999", "port"),
            ("redis://:a/b@h", "percent-encoded"),
            ("redis://h/x", "number"),
            ("redis://h ", "blank"),
        ] {
            assert!(redis_problem(url).is_some_and(|m| m.contains(word)), "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_password_survives_redaction(before in "[a-z:/?#@&=]{0,8}", after in "[a-z:/?#@&=]{0,8}") {
            let password = format!("{before}SECRET{after}");
            for url in [format!("redis://u:{password}@h/0"), format!("postgres://u:{password}@h/d")] {
                prop_assert!(!redact_url(&url).contains("SECRET"), "{}", redact_url(&url));
            }
        }
    }
}
