//! Progress on stderr: bars on a terminal, plain lines elsewhere, or nothing.
//!
//! Invariant: showing progress never slows or stops the run; it reads counters from a thread of its own.

mod late;
mod reading;

use super::failure::say;
use crate::forecast::Pace;
use crate::journal::CommitHandle;
use crate::lane::now_ms;
use crate::progress::Counters;
use crate::rebuild::Watcher;
use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use late::Risk;
use reading::Reading;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// `Bar` on a terminal, else `Log`.
    Auto,
    /// One bar per route.
    Bar,
    /// A plain line every few seconds.
    Log,
    /// Nothing.
    None,
}

/// How often counters are looked at for a change of phase, and bars are drawn.
const LOOK: Duration = Duration::from_millis(250);
/// How often the log gets a line.
const LINE: Duration = Duration::from_secs(5);
/// A speed measured over less than this predicts nothing worth a warning.
const WARN_AFTER: Duration = Duration::from_secs(10);

/// Shows the progress of one run.
pub(crate) struct Display {
    progress: Progress,
    bars: MultiProgress,
    ticker: Mutex<Option<Ticker>>,
}

/// The thread that shows; it ends when `stop` is dropped.
struct Ticker {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Display {
    /// Makes a display; bars are drawn only when stderr is a terminal.
    pub(crate) fn new(progress: Progress, bars: MultiProgress) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let progress = match progress {
            Progress::Auto | Progress::Bar if is_terminal => Progress::Bar,
            Progress::Auto | Progress::Bar => Progress::Log,
            given => given,
        };
        Self { progress, bars, ticker: Mutex::new(None) }
    }

    fn replace(&self, ticker: Option<Ticker>) {
        let before = std::mem::replace(
            &mut *self.ticker.lock().unwrap_or_else(PoisonError::into_inner),
            ticker,
        );
        if let Some(Ticker { stop, thread }) = before {
            drop(stop);
            if thread.join().is_err() {
                tracing::warn!("the progress display failed");
            }
        }
    }
}

impl Watcher for Display {
    fn begin(&self, counters: Arc<Counters>, commits: Option<CommitHandle>) {
        self.replace(None);
        if self.progress == Progress::None {
            return;
        }
        let (stop, stopped) = sync_channel(0);
        let source = Readings { counters, commits, pace: Pace::default() };
        let bars = (self.progress == Progress::Bar).then(|| self.bars.clone());
        let thread =
            std::thread::Builder::new().name("progress".into()).spawn(move || match bars {
                Some(bars) => draw(source, &bars, &stopped),
                None => log(source, &stopped),
            });
        match thread {
            Ok(thread) => self.replace(Some(Ticker { stop, thread })),
            Err(error) => tracing::warn!(%error, "no thread for the progress display"),
        }
    }

    fn say(&self, line: &str) {
        match self.progress {
            Progress::None => {}
            Progress::Bar => print_above(&self.bars, line),
            Progress::Auto | Progress::Log => say(&stamped(line)),
        }
    }

    fn end(&self) {
        self.replace(None);
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// What a display reads from.
struct Readings {
    counters: Arc<Counters>,
    commits: Option<CommitHandle>,
    pace: Pace,
}

impl Readings {
    fn take(&mut self) -> Reading {
        let commits = self.commits.as_ref().map(CommitHandle::commits);
        Reading::take(&self.counters, commits, now_ms(), &mut self.pace)
    }
}

/// Waits until the next look; `false` once the display is over.
fn goes_on(stopped: &Receiver<()>) -> bool {
    stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout)
}

/// Gives the warning about the RTO whenever it stands worse than before.
fn warn_if_worse(reading: &Reading, warned: &mut Risk) -> Option<String> {
    if reading.elapsed < WARN_AFTER {
        return None;
    }
    let late = reading.late().filter(|late| late.risk() > *warned)?;
    *warned = late.risk();
    Some(late.to_string())
}

fn log(mut source: Readings, stopped: &Receiver<()>) {
    let mut phases: Vec<usize> = source.take().routes.iter().map(|route| route.phase).collect();
    let mut said = Instant::now();
    let mut warned = Risk::None;
    loop {
        let goes_on = goes_on(stopped);
        let reading = source.take();
        let mut text = String::new();
        for (route, phase) in phases.iter_mut().enumerate() {
            if std::mem::replace(phase, reading.routes[route].phase) != *phase {
                text.push_str(&stamped(&reading.line_of(route)));
            }
        }
        if goes_on && said.elapsed() >= LINE {
            text.push_str(&stamped(&reading.line()));
            said = Instant::now();
        }
        if let Some(warning) = warn_if_worse(&reading, &mut warned) {
            text.push_str(&stamped(&warning));
        }
        say(&text);
        if !goes_on {
            return;
        }
    }
}

fn draw(mut source: Readings, bars: &MultiProgress, stopped: &Receiver<()>) {
    let first = source.take();
    let width = first.routes.iter().map(|route| route.name.chars().count()).max().unwrap_or(0);
    let drawn: Vec<ProgressBar> = first
        .routes
        .iter()
        .map(|route| {
            let bar = bars.add(ProgressBar::new(0).with_style(style("{prefix} [{bar:24}] {msg}")));
            bar.set_prefix(format!("{:width$}", route.name));
            bar
        })
        .collect();
    let bottom = bars.add(ProgressBar::new(0).with_style(style("{msg}")));
    let mut warned = Risk::None;
    loop {
        let reading = source.take();
        for (bar, route) in drawn.iter().zip(&reading.routes) {
            let expected = if route.is_loaded() { Some(route.rows) } else { route.rows_estimate };
            bar.set_length(expected.unwrap_or(0).max(route.rows).max(1));
            bar.set_position(if expected.is_some() { route.rows } else { 0 });
            bar.set_message(route.progress());
        }
        bottom.set_message(reading.bottom_line());
        if let Some(warning) = warn_if_worse(&reading, &mut warned) {
            print_above(bars, &warning);
        }
        if !goes_on(stopped) {
            break;
        }
    }
    for bar in drawn.iter().chain([&bottom]) {
        bar.finish_and_clear();
        bars.remove(bar);
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would be a mistake of this file; the plain bar still shows progress.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn print_above(bars: &MultiProgress, line: &str) {
    if let Err(error) = bars.println(line) {
        tracing::trace!(%error, "stderr is gone");
    }
}

/// Puts the time of day (UTC) before a line and ends it.
fn stamped(line: &str) -> String {
    let second = now_ms().div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}Z {line}\n", second / 3600, second / 60 % 60, second % 60)
}

/// Stderr for the log of the program, without tearing the bars apart.
#[derive(Clone)]
pub(crate) struct LogWriter(pub(crate) MultiProgress);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
