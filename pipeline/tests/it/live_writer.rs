//! An application that changes rows and keys during a whole rebuild: at the end no key is older than its row.
//!
//! Invariant: the application is one thread with connections of its own, and shares no code with the product; what it
//! did and when is its own record, and the clock is that of the one machine.

use crate::items::{Fields, Reply, Wire, random, standing, wanted};
use crate::live::fill;
use crate::world::{Ran, World, wait_until};
use jiff::Timestamp;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows at the start.
const ROWS: u64 = 60_000;

/// A session of psql that answers statement by statement.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(world: &World) -> Self {
        let mut child = Command::new("psql")
            .args(["-X", "-q", "-t", "-A"])
            .args(world.postgres.superuser_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// Runs one statement, which is committed when this returns; its first row.
    fn run(&mut self, sql: &str) -> Option<String> {
        write!(self.input, "{sql};\n\\echo done\n").unwrap();
        self.input.flush().unwrap();
        let mut first = None;
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "psql ended");
            match line.trim_end() {
                "done" => return first,
                row => first = first.or_else(|| Some(row.to_owned())),
            }
        }
    }

    fn close(mut self) {
        drop(self.input);
        self.child.wait().unwrap();
    }
}

/// What the application did to a row last, and what became of the key then.
#[derive(Debug, Clone, Copy)]
struct Deed {
    at: Timestamp,
    /// Whether the key was written, or removed because the row is gone; else it was only made invalid.
    is_through: bool,
    is_deleted: bool,
}

struct Application {
    session: Session,
    wire: Wire,
    seed: u64,
    is_json: bool,
    last_id: u64,
    deeds: HashMap<u64, Deed>,
}

impl Application {
    fn new(world: &World, seed: u64, is_json: bool) -> Self {
        let (session, wire) = (Session::open(world), Wire::open(world));
        Self { session, wire, seed, is_json, last_id: ROWS, deeds: HashMap::new() }
    }

    /// Works until it is told to stop.
    fn work(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            self.deed();
        }
        self
    }

    /// Changes one row, as applications do, and then its key.
    fn deed(&mut self) {
        let what = random(&mut self.seed, 100);
        let id =
            if what < 10 { self.last_id + 1 } else { 1 + random(&mut self.seed, self.last_id) };
        let value = random(&mut self.seed, 1_000_000);
        let returning = "returning a, coalesce(b::text, ''), to_char(c at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') \
            || replace(to_char(c at time zone 'UTC', '.US'), '.000000', '') || 'Z'";
        let row = match what {
            0..10 => {
                self.last_id = id;
                self.session.run(&format!(
                    "insert into items values ({id}, 'new {value}', {value}, clock_timestamp()) {returning}"
                ))
            }
            10..80 => self.session.run(&format!(
                "insert into items values ({id}, 'again {value}', null, clock_timestamp()) \
                 on conflict (id) do update set a = 'write {value}', b = {value}, c = clock_timestamp() {returning}"
            )),
            _ => {
                self.session.run(&format!("delete from items where id = {id}"));
                None
            }
        };
        let key = format!("item:{id}");
        let is_deleted = row.is_none();
        let is_through = match row {
            None => {
                self.wire.ask(&["DEL", &key]);
                true
            }
            // Some keys are only made invalid: whoever reads them next would write them.
            Some(_) if random(&mut self.seed, 3) == 0 => {
                self.wire.ask(&["DEL", &key]);
                false
            }
            Some(row) => {
                self.write(&key, &row);
                true
            }
        };
        self.deeds.insert(id, Deed { at: Timestamp::now(), is_through, is_deleted });
    }

    /// Writes a key as the plan lays it out.
    fn write(&mut self, key: &str, row: &str) {
        let cells: Vec<&str> = row.split('|').collect();
        let words: Vec<Vec<String>> = if self.is_json {
            let b =
                if cells[1].is_empty() { String::new() } else { format!("\"b\":{},", cells[1]) };
            let text = format!("{{\"a\":\"{}\",{b}\"c\":\"{}\"}}", cells[0], cells[2]);
            vec![vec!["SET".into(), key.into(), text]]
        } else {
            let mut set: Vec<String> = ["HSET", key, "a", cells[0]].map(str::to_owned).to_vec();
            if !cells[1].is_empty() {
                set.extend(["b".to_owned(), cells[1].to_owned()]);
            }
            set.extend(["c".to_owned(), cells[2].to_owned()]);
            let word = |word: &str| vec![word.to_owned()];
            vec![word("MULTI"), vec!["DEL".into(), key.into()], set, word("EXEC")]
        };
        let replies = self.wire.pipeline(&words);
        assert!(matches!(replies.last(), Some(Reply::Text(_) | Reply::List(_))), "{replies:?}");
    }
}

/// Compares every key with its row. `as_of` is the state of the last pass: what changed before it is exact; what changed
/// later is exact where the application wrote it.
fn assert_never_older(world: &World, application: &Application, as_of: Timestamp) {
    let wanted: HashMap<String, Fields> = wanted(world, "abc");
    let found = Wire::open(world).everything();
    let (mut exact, mut later, mut open) = (0, 0, 0);
    for id in 1..=application.last_id {
        let key = format!("item:{id}");
        let (row, stored) = (wanted.get(&key), found.get(&key));
        let deed = application.deeds.get(&id);
        // Its commit lies before the note of it, by the same clock.
        let is_before = deed.is_none_or(|deed| deed.at < as_of);
        let is_written = deed.is_some_and(|deed| deed.is_through && !deed.is_deleted);
        if is_before || is_written {
            assert_eq!(stored, row, "{key} as of {as_of}: {deed:?}");
        }
        match (is_before, is_written) {
            (true, _) => exact += 1,
            (false, true) => later += 1,
            (false, false) => open += 1,
        }
    }
    println!("{exact} rows at rest, {later} written later, {open} removed or made invalid later");
    assert!(exact > 0 && later > 0, "the application did not work all the time");
    let unknown = found.keys().filter(|key| {
        let id = key.strip_prefix("item:").and_then(|id| id.parse::<u64>().ok());
        id.is_none_or(|id| id > application.last_id)
    });
    assert_eq!(unknown.count(), 0);
}

/// Starts a rebuild that waits for a source which the application keeps busy.
fn start(world: &World) -> Child {
    let words = ["rebuild", "redis", "--json", "--progress", "none", "--lanes", "2"];
    let mut command = world.command(&words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Rebuilds while the application works, killed once on the way if so asked.
fn rebuilt_beside_an_application(layout: &str, seed: u64, is_killed: bool) {
    println!("{layout}, seed {seed}");
    let world = World::new();
    fill(&world, layout, ROWS, "catch_up = \"1h\"\n");
    let stop = AtomicBool::new(false);
    let application = Application::new(&world, seed, layout == "json");
    let (ran, application) = std::thread::scope(|scope| {
        let at_work = scope.spawn(|| application.work(&stop));
        let mut child = start(&world);
        if is_killed {
            let mut wire = Wire::open(&world);
            wait_until("progress", || wire.dbsize() > ROWS / 2);
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(standing(&world)["status"], "killed");
            child = start(&world);
        }
        let ran = Ran::of(&child.wait_with_output().unwrap());
        stop.store(true, Ordering::Relaxed);
        (ran, at_work.join().unwrap())
    });
    let summary = ran.expect(0).summary();
    assert_eq!(summary["resumed"], u64::from(is_killed), "{summary}");
    assert!(summary["kept"].as_u64() > Some(0), "{summary}");
    let as_of: Timestamp = summary["routes"][0]["data_as_of"].as_str().unwrap().parse().unwrap();
    println!("{} newer, {} dropped", summary["verified"]["newer"], summary["dropped_keys"]);
    assert_never_older(&world, &application, as_of);
    application.session.close();
}

fn seeds() -> [u64; 2] {
    [(); 2].map(|()| RandomState::new().hash_one(()))
}

#[test]
fn no_hash_is_older_than_its_row_after_a_rebuild_beside_a_writer() {
    for seed in seeds() {
        rebuilt_beside_an_application("hash", seed, false);
    }
}

#[test]
fn no_json_value_is_older_than_its_row_after_a_rebuild_beside_a_writer() {
    for seed in seeds() {
        rebuilt_beside_an_application("json", seed, false);
    }
}

#[test]
fn no_key_is_older_than_its_row_after_a_rebuild_beside_a_writer_was_killed_and_resumed() {
    let [one, other] = seeds();
    rebuilt_beside_an_application("hash", one, true);
    rebuilt_beside_an_application("json", other, true);
}
