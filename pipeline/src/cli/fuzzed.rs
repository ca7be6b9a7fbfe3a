//! Words of the command line that are more than a choice: times, durations, sizes, shares, ranges, windows.

use super::args::parse_past;
use super::limits::{parse_share, parse_size, parse_time};
use super::verify::parse_settle;
use crate::backup::windows::Window;
use crate::fuzzed::fuzz;
use crate::restore::PartitionRange;
use fixtures::fuzz::Told;
use schemas::duration;

#[test]
fn words_of_anybody() {
    let corpus = [
        "2026-01-31T04:05:06Z",
        "2026-01-31 04:05:06.123+02:00",
        "90m",
        "20ms",
        "3650d",
        "80%",
        "20mb",
        "1GB",
        "7",
        "20261101..20261130",
        "__NULL__",
        "w:..18",
        "w:-5..9223372036854775807",
    ];
    let words = [
        "ms",
        "kb",
        "%",
        "..",
        "w:",
        "Z",
        "+23:59",
        "-009999",
        "T",
        "9223372036854775807",
        "[Europe/Berlin]",
        "+",
    ];
    fuzz("words of the command line", &corpus).words(&words).heap(1 << 16, 32).run(|input, _| {
        let text = String::from_utf8_lossy(input);
        let times = [parse_settle(&text), parse_time(&text)].map(Result::ok);
        // What is added to the time of day has to stay a time of day.
        assert!(times.iter().flatten().all(|time| *time <= duration::LONGEST), "{times:?}");
        let share = parse_share(&text).ok();
        assert!(share.is_none_or(|share| (1..=95).contains(&share)));
        let size = parse_size(&text).ok();
        assert!(size.is_none_or(|size| size > 0));
        let range = PartitionRange::parse(&text).ok();
        assert!(
            range.as_ref().is_none_or(|range| range.contains("20261115") || !range.contains("x"))
        );
        let window = Window::parse(&text);
        assert!(window.is_none_or(|window| Window::parse(&window.name()) == Some(window)));
        let is_time = parse_past(&text).is_ok() || times.iter().any(Option::is_some);
        let is_other = share.is_some() || size.is_some() || range.is_some() || window.is_some();
        if is_time || is_other { Told::Taken } else { Told::Refused }
    });
}
