//! Limits of others that a whole recovery would meet: documented ones of BigQuery, memory of Redis, the link of this machine.
//!
//! Invariant: a limit is told with its figure, the share of it that production would take, and where the figure is from; one
//! that nobody told is not made up.

use crate::backup::copy::STREAMS;
use crate::cli::figures::{bytes, count};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Where the figures of BigQuery are from; a project may have others.
const OF_GOOGLE: &str = "defaults of Google's page \"Quotas and limits\" as copied by others; a project's own are in the console";
/// Bytes per second that a project may append, in the multi-regions and in a region.
const APPEND_BYTES_PER_SECOND: (f64, f64) = (3e9, 300e6);
/// Connections that append at once.
const APPEND_CONNECTIONS: (f64, f64) = (10_000.0, 100.0);
/// Bytes in streams that are not committed yet.
const PENDING_BYTES: (f64, f64) = (10e12, 100e9);
/// Write streams that may be made in four hours.
const STREAMS_IN_4_HOURS: f64 = 30_000.0;
/// Copy jobs of a project in a day.
const COPY_JOBS_A_DAY: f64 = 100_000.0;
/// Changes of one table by jobs in a day.
const TABLE_CHANGES_A_DAY: f64 = 1_500.0;
/// Streams of one read session at most; a backup has a session for each table partition.
const READ_STREAMS: f64 = 1_000.0;
const FOUR_HOURS: f64 = 4.0 * 3_600.0;
/// What the link of this machine is called among limits.
const NETWORK: &str = "network of this machine";

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// What is limited.
    pub name: String,
    /// The figure.
    pub limit: f64,
    /// `B`, `B/s`, or what is counted.
    pub unit: String,
    /// What production would take of it.
    pub used: f64,
    /// That as a part of the limit; 1 is all of it.
    pub share: f64,
    /// Whether production would take more than there is.
    pub binds: bool,
    /// Seconds that it takes at least, where the limit is one of a rate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub least_seconds: Option<f64>,
    /// Where the figure is from.
    pub source: String,
}

/// What a restore of everything would ask of BigQuery.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct OfRestore {
    /// Logical bytes of all tables.
    pub bytes: f64,
    /// Logical bytes of the largest table partition.
    pub bytes_of_partition: f64,
    /// Table partitions, each with a write stream of its own.
    pub streams: f64,
    /// Copy jobs that publish.
    pub copies: f64,
    /// Those of the table that has the most.
    pub copies_of_table: f64,
    /// Table partitions at once.
    pub lanes: f64,
    /// The predicted time, or the objective where there is none.
    pub seconds: f64,
}

impl Quota {
    fn new(name: &str, unit: &str, used: f64, limit: f64, source: &str) -> Self {
        Self {
            name: name.to_owned(),
            limit,
            unit: unit.to_owned(),
            used,
            share: used / limit,
            binds: used > limit,
            least_seconds: None,
            source: source.to_owned(),
        }
    }

    /// One of a rate: where that is too low it takes longer, and nothing is refused.
    fn of_rate(name: &str, unit: &str, (amount, seconds): (f64, f64), limit: f64) -> Self {
        let used = amount / seconds.max(f64::MIN_POSITIVE);
        let least_seconds = Some(amount / limit);
        Self { least_seconds, ..Self::new(name, unit, used, limit, OF_GOOGLE) }
    }

    /// Writes `rows appended by a project: 300 MB/s, 12 % of it`, and whether it binds.
    pub(crate) fn line(&self) -> String {
        let binds = match (self.binds, self.least_seconds) {
            (false, _) => "",
            (true, Some(_)) => "; it BINDS, and makes it slower",
            (true, None) => "; it BINDS",
        };
        let Self { name, source, .. } = self;
        let percent = self.share * 100.0;
        let part =
            if percent < 1.0 { "less than 1 %".to_owned() } else { format!("{percent:.0} %") };
        format!("{name}: {}, {part} of it{binds} ({source})", self.figure())
    }

    /// Writes the limit with its unit.
    fn figure(&self) -> String {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts saturate"
        )]
        let whole = self.limit as u64;
        match self.unit.as_str() {
            "B" => bytes(whole),
            "B/s" => format!("{}/s", bytes(whole)),
            unit => format!("{} {unit}", count(whole)),
        }
    }
}

/// What BigQuery limits of a restore. `location` is that of the datasets.
pub(crate) fn of_restore(location: Option<&str>, of: &OfRestore) -> Vec<Quota> {
    // Where nobody says, the lower figures hold.
    let is_multi = location
        .is_some_and(|place| place.eq_ignore_ascii_case("us") || place.eq_ignore_ascii_case("eu"));
    let here = |(multi, region): (f64, f64)| if is_multi { multi } else { region };
    let pending = (of.lanes * of.bytes_of_partition).min(of.bytes);
    let fixed = |name: &str, unit: &str, used: f64, limit: f64| {
        Quota::new(name, unit, used, limit, OF_GOOGLE)
    };
    vec![
        Quota::of_rate(
            "rows appended by a project",
            "B/s",
            (of.bytes, of.seconds),
            here(APPEND_BYTES_PER_SECOND),
        ),
        fixed("connections that append at once", "connections", of.lanes, here(APPEND_CONNECTIONS)),
        fixed("bytes in streams that are not committed yet", "B", pending, here(PENDING_BYTES)),
        Quota::of_rate(
            "write streams made",
            "streams in 4 hours",
            (of.streams * FOUR_HOURS, of.seconds.max(FOUR_HOURS)),
            STREAMS_IN_4_HOURS,
        )
        .with_least((of.streams / STREAMS_IN_4_HOURS - 1.0).max(0.0) * FOUR_HOURS),
        fixed("copy jobs of a project", "jobs a day", of.copies, COPY_JOBS_A_DAY),
        fixed(
            "changes of one table by jobs",
            "changes a day",
            of.copies_of_table,
            TABLE_CHANGES_A_DAY,
        ),
    ]
}

/// What BigQuery limits of a backup.
pub(crate) fn of_backup() -> Vec<Quota> {
    let name = "streams of a read session of a backup";
    vec![Quota::new(name, "streams", STREAMS.into(), READ_STREAMS, OF_GOOGLE)]
}

/// What limits a rebuild: the memory of Redis, and the link for so many bytes of the sources in these seconds.
pub(crate) fn of_rebuild(
    memory: Option<Quota>,
    link: Option<&Link>,
    (bytes, seconds): (Option<f64>, f64),
) -> Vec<Quota> {
    let network = link.zip(bytes).map(|(link, bytes)| link.quota(bytes, seconds));
    memory.into_iter().chain(network).collect()
}

impl Quota {
    /// Sets the least time, where that is not the amount by the limit.
    fn with_least(self, seconds: f64) -> Self {
        Self { least_seconds: Some(seconds), ..self }
    }
}

/// What Redis has room for once it was lost, and is as large as now. `used` is what it holds now: of what is rebuilt, nobody
/// knows how much of that. `ceiling` is the share of the limit that may be filled.
pub(super) fn of_memory(used: u64, needed: u64, limit: u64, ceiling: f64) -> Quota {
    let source = format!(
        "{:.0} % of maxmemory of the plan's redis, taken as empty; it holds {} now",
        ceiling * 100.0,
        bytes(used)
    );
    let limit = limit as f64 * ceiling;
    Quota::new("memory of redis", "B", needed as f64, limit.max(1.0), &source)
}

/// What Redis has room for beside what it holds: a run adds so many bytes to those that are used.
pub(crate) fn of_memory_added(used: u64, added: u64, limit: u64, ceiling: f64) -> Quota {
    let source = format!(
        "{:.0} % of maxmemory of the plan's redis, with what it holds now",
        ceiling * 100.0
    );
    let limit = limit as f64 * ceiling;
    let needed = used.saturating_add(added) as f64;
    Quota::new("memory of redis", "B", needed, limit.max(1.0), &source)
}

/// The link of this machine's default route, whose speed the system tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    name: String,
    bytes_per_second: f64,
}

impl Link {
    /// Asks the system; `None` where it does not tell.
    pub(crate) fn of_machine() -> Option<Self> {
        let routes = fs::read_to_string("/proc/net/route").ok()?;
        let name = default_link(&routes)?.to_owned();
        let speed = Path::new("/sys/class/net").join(&name).join("speed");
        let megabits: f64 = fs::read_to_string(speed).ok()?.trim().parse().ok()?;
        // A virtual one has none, or -1.
        (megabits > 0.0).then_some(Self { name, bytes_per_second: megabits * 1e6 / 8.0 })
    }

    /// What it limits of so many bytes in these seconds.
    pub(crate) fn quota(&self, bytes: f64, seconds: f64) -> Quota {
        let source = format!("speed of {}, the link of this machine's default route", self.name);
        let used = bytes / seconds.max(f64::MIN_POSITIVE);
        let limit = self.bytes_per_second;
        let quota = Quota::new(NETWORK, "B/s", used, limit, &source);
        quota.with_least(bytes / limit)
    }
}

/// The link of the default route, in the kernel's table of routes.
fn default_link(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, destination) = (words.next()?, words.next()?);
        let is_name = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        (destination == "00000000" && is_name).then_some(name)
    })
}

/// The time that the limits of rates leave no less of.
pub(crate) fn least_seconds(quotas: &[Quota]) -> f64 {
    quotas.iter().filter_map(|quota| quota.least_seconds).fold(0.0, f64::max)
}

/// The part of that which the link of this machine leaves no less of, and more machines would.
pub(super) fn least_seconds_of_link(quotas: &[Quota]) -> f64 {
    let of_link = quotas.iter().filter(|quota| quota.name == NETWORK);
    of_link.filter_map(|quota| quota.least_seconds).fold(0.0, f64::max)
}

/// The part of that which somebody else has to raise.
pub(super) fn least_seconds_of_others(quotas: &[Quota]) -> f64 {
    let of_others = quotas.iter().filter(|quota| quota.name != NETWORK);
    of_others.filter_map(|quota| quota.least_seconds).fold(0.0, f64::max)
}

/// Names what would be refused, or come later, and what to do about it; empty where nothing binds.
pub(crate) fn warnings(quotas: &[Quota]) -> Vec<String> {
    let binding = quotas.iter().filter(|quota| quota.binds);
    binding.map(|quota| format!("a limit binds: {}", quota.line())).collect()
}

/// Whether production would be refused, however long it may take.
pub(crate) fn is_refused(quotas: &[Quota]) -> bool {
    refusal(quotas).is_some()
}

/// What has to be done before anything else helps; `None` where nothing would be refused.
pub(crate) fn refusal(quotas: &[Quota]) -> Option<String> {
    let refuses = quotas.iter().filter(|quota| quota.binds && quota.least_seconds.is_none());
    let names: Vec<&str> = refuses.map(|quota| quota.name.as_str()).collect();
    let told = || format!("first of all there has to be more of: {}", names.join(", "));
    (!names.is_empty()).then(told)
}

/// How the RTO stands, in a word.
pub(crate) fn verdict(is_met: bool, quotas: &[Quota]) -> &'static str {
    match (is_met, is_refused(quotas)) {
        (true, _) => "met",
        (false, true) => "REFUSED by a limit,",
        (false, false) => "MISSED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERABYTE: OfRestore = OfRestore {
        bytes: 1e12,
        bytes_of_partition: 10e9,
        streams: 400.0,
        copies: 4.0,
        copies_of_table: 1.0,
        lanes: 4.0,
        seconds: 1_000.0,
    };

    fn binding(quotas: &[Quota]) -> Vec<&str> {
        quotas.iter().filter(|quota| quota.binds).map(|quota| quota.name.as_str()).collect()
    }

    #[test]
    fn a_region_takes_less_than_a_multi_region_and_a_rate_only_makes_slower() {
        let region = of_restore(Some("us-central1"), &TERABYTE);
        assert_eq!(binding(&region), ["rows appended by a project"]);
        assert!((least_seconds(&region) - 1e12 / 300e6).abs() < 1e-6);
        assert!(!is_refused(&region));
        let line = region[0].line();
        assert!(line.starts_with("rows appended by a project: 300"), "{line}");
        assert!(line.contains("333 % of it; it BINDS, and makes it slower"), "{line}");
        assert_eq!(warnings(&region), [format!("a limit binds: {line}")]);
        let multi = of_restore(Some("US"), &TERABYTE);
        assert!(binding(&multi).is_empty() && warnings(&multi).is_empty(), "{multi:?}");
        // Where nobody says where it is, the lower figures hold.
        assert_eq!(of_restore(None, &TERABYTE), region);
    }

    #[test]
    fn what_is_counted_is_refused_where_there_is_too_much() {
        let many = OfRestore {
            copies: 2_000.0,
            copies_of_table: 2_000.0,
            bytes_of_partition: 50e9,
            streams: 60_000.0,
            seconds: 100_000.0,
            ..TERABYTE
        };
        let quotas = of_restore(Some("europe-west1"), &many);
        assert_eq!(
            binding(&quotas),
            ["bytes in streams that are not committed yet", "changes of one table by jobs"]
        );
        assert!(is_refused(&quotas));
        // Of 60,000 streams the second half waits for four hours to pass.
        let fast = of_restore(None, &OfRestore { seconds: 3_600.0, ..many });
        assert!(binding(&fast).contains(&"write streams made"), "{fast:?}");
        assert!((least_seconds(&fast) - FOUR_HOURS).abs() < 1e-6);
    }

    #[test]
    fn memory_binds_above_its_ceiling_and_a_small_share_is_told_as_such() {
        let fits = of_memory(900, 800, 1_000, 0.95);
        assert!(!fits.binds && fits.line().contains("84 % of it"), "{}", fits.line());
        let full = of_memory(0, 1_000, 1_000, 0.95);
        let both = [fits.clone(), full.clone()];
        assert_eq!(
            refusal(&both).unwrap(),
            "first of all there has to be more of: memory of redis"
        );
        assert_eq!((verdict(false, &both), verdict(true, &[])), ("REFUSED by a limit,", "met"));
        assert_eq!((verdict(false, &[fits]), refusal(&[])), ("MISSED", None));
        assert!(full.binds && is_refused(std::slice::from_ref(&full)));
        assert!(full.line().contains("105 % of it; it BINDS ("), "{}", full.line());
        assert!(of_memory(0, 1, 1_000, 1.0).line().contains("less than 1 % of it"));
    }

    #[test]
    fn the_link_is_that_of_the_default_route_and_makes_slower() {
        let link = Link { name: "eth1".to_owned(), bytes_per_second: 125e6 };
        let quota = link.quota(1e12, 4_000.0);
        assert!(quota.binds && !is_refused(std::slice::from_ref(&quota)));
        assert!((least_seconds(&[quota]) - 8_000.0).abs() < 1e-6);
        let routes = "Iface\tDestination\tGateway\nlo\t0000007F\t0\neth1\t00000000\t0100000A\n";
        assert_eq!(default_link(routes), Some("eth1"));
        assert_eq!(default_link("Iface\tDestination\nlo\t0000007F\n"), None);
        assert_eq!(default_link("Iface\tDestination\n../x\t00000000\n"), None);
    }
}
