//! The flags that say how hard a run may push: share of memory, rates, pauses, connections.
//!
//! Invariant: everything is off unless asked for, except what keeps the target from evicting.

use crate::guard::Limits;
use crate::tuning::Lanes;
use clap::Args;
use std::time::Duration;

/// Connections to the source beside one per lane: one holds the snapshot, two are for control.
const CONTROL_CONNECTIONS: usize = 3;

/// Flags of `plan` and `rebuild redis`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitFlags {
    /// Load by priority and newest first up to this share of maxmemory, 1% to 95%, and leave the rest out: ends with 0
    /// as partial and lists what it left out; the same command without it loads the rest
    #[arg(long, value_name = "SHARE", value_parser = parse_share, conflicts_with = "cut_over")]
    pub fit: Option<u64>,
    /// How long to wait for room in Redis before the run ends with 5
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = schemas::duration::parse)]
    pub wait_for_room: Duration,
    /// Rows per second of all lanes together, on average
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_rows_per_second: Option<u64>,
    /// Bytes per second of all lanes together, read or sent, whichever is more, for example 20mb
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_bytes_per_second: Option<u64>,
    /// Connections to AlloyDB at most, from 4; fewer than lanes and 3 leave fewer lanes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(4..))]
    pub source_connections: Option<u16>,
    /// Pause while 1 of 100 answers of Redis takes longer, for example 20ms
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub pause_above_redis_latency: Option<Duration>,
    /// Pause while a replica of Redis is further behind
    #[arg(long, value_name = "SIZE", default_value = "64mb", value_parser = parse_size)]
    pub pause_above_redis_lag: u64,
    /// Pause while an empty query on AlloyDB takes longer, for example 50ms
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub pause_above_source_latency: Option<Duration>,
    /// Pause while AlloyDB, or a replica of it, is further behind, for example 10s
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub pause_above_source_lag: Option<Duration>,
    /// Pause while more queries of others are at work on AlloyDB
    #[arg(long, value_name = "N")]
    pub pause_above_source_active: Option<u64>,
}

impl LimitFlags {
    /// The same for the run.
    pub fn limits(&self) -> Limits {
        Limits {
            fit_percent: self.fit,
            wait_for_room: self.wait_for_room,
            rows_per_second: self.max_rows_per_second,
            bytes_per_second: self.max_bytes_per_second,
            redis_latency: self.pause_above_redis_latency,
            redis_lag_bytes: self.pause_above_redis_lag,
            source_latency: self.pause_above_source_latency,
            source_lag: self.pause_above_source_lag,
            source_active: self.pause_above_source_active,
        }
    }

    /// As many lanes as the connections to the source allow.
    pub fn lanes(&self, asked: Lanes) -> Lanes {
        let most = self.source_connections.map(|most| usize::from(most) - CONTROL_CONNECTIONS);
        most.map_or(asked, |most| asked.at_most(most))
    }
}

pub(super) fn parse_share(text: &str) -> Result<u64, String> {
    let share = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
    share
        .filter(|share| (1..=crate::guard::CEILING_PERCENT).contains(share))
        .ok_or_else(|| "must be a share from 1% to 95%, for example \"80%\"".to_owned())
}

/// A size as Redis writes it: `kb`, `mb` and `gb` are powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let units = [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30), ("", 1)];
    let lower = text.to_ascii_lowercase();
    let found = units.iter().find_map(|(unit, size)| Some((lower.strip_suffix(unit)?, *size)));
    found
        .and_then(|(digits, size): (&str, u64)| digits.parse::<u64>().ok()?.checked_mul(size))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| {
            "must be bytes or a number with kb, mb or gb, for example \"20mb\"".to_owned()
        })
}

/// A duration, or milliseconds.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    if let Some(digits) = text.strip_suffix("ms") {
        let ms = digits.parse::<u64>().ok().filter(|ms| *ms > 0);
        let time = ms.map(Duration::from_millis);
        let time = time.ok_or_else(|| "must be a whole number of ms, more than zero".to_owned());
        return schemas::duration::bounded(time?);
    }
    schemas::duration::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sizes_and_times_are_read() {
        assert_eq!((parse_share("80%"), parse_share("1%")), (Ok(80), Ok(1)));
        for bad in ["80", "0%", "96%", "-1%", "x%", "%"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
        assert_eq!((parse_size("20mb"), parse_size("7")), (Ok(20 << 20), Ok(7)));
        assert_eq!(parse_size("1GB"), Ok(1 << 30));
        for bad in ["", "mb", "0kb", "1tb", "99999999999gb", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_time("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_time("10s"), Ok(Duration::from_secs(10)));
        assert!(parse_time("0ms").is_err() && parse_time("ms").is_err());
    }
}
