//! Table `items`: filling it, killing a rebuild of it at a known point, and comparing every key with its row.
//!
//! Invariant: the comparison shares no code with the product: SQL on one side, raw RESP on the other.

use crate::world::{Ran, World, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

/// Rows of the table: enough that a run takes over a second and commits many times on its way.
pub(crate) const ROWS: u64 = 200_000;
/// The route, as hash.
pub(crate) const HASH: &str = "[[route]]\nname = \"items\"\ntable = \"alloydb:public.items\"\n\
    key = \"item:{id}\"\ntype = \"hash\"\n";
/// The same as JSON text.
pub(crate) const JSON: &str = "[[route]]\nname = \"items\"\ntable = \"alloydb:public.items\"\n\
    key = \"item:{id}\"\ntype = \"json\"\n";
/// Keys asked for in one pipeline.
pub(crate) const PIPELINE: usize = 1_000;

/// Field names and texts of one row, null left out.
pub(crate) type Fields = BTreeMap<String, String>;

/// Creates and fills the table.
pub(crate) fn fill(world: &World) {
    fill_with(world, ROWS);
}

/// The same with so many rows.
pub(crate) fn fill_with(world: &World, rows: u64) {
    world.sql(&format!(
        "create table items (id bigint primary key, a text not null, b int, c timestamptz);
         insert into items select i, repeat(md5(i::text), 1 + i % 3),
             case when i % 13 <> 0 then i * 7 % 100003 end,
             case when i % 3 <> 0 then timestamptz '2024-02-28 22:59:58Z' + i * interval '61.5 seconds' end
             from generate_series(1, {rows}) i;
         vacuum analyze items;"
    ));
}

/// A world with the filled table and the hash plan.
pub(crate) fn filled() -> World {
    let world = World::new();
    fill(&world);
    world.plan(HASH);
    world
}

/// A reply of Redis.
#[derive(Debug)]
pub(crate) enum Reply {
    Text(Option<String>),
    Number(i64),
    List(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    pub(crate) fn list(self) -> Vec<Reply> {
        match self {
            Self::List(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }
}

/// A connection to Redis that is none of the product's.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) fn open(world: &World) -> Self {
        Self::to(world.redis.port())
    }

    /// A connection to the server on this port.
    pub(crate) fn to(port: u16) -> Self {
        Self(BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()))
    }

    pub(crate) fn ask(&mut self, words: &[&str]) -> Reply {
        self.pipeline(&[words.iter().map(|word| (*word).to_owned()).collect()]).remove(0)
    }

    pub(crate) fn pipeline(&mut self, commands: &[Vec<String>]) -> Vec<Reply> {
        let mut text = String::new();
        for command in commands {
            write!(text, "*{}\r\n", command.len()).unwrap();
            for word in command {
                write!(text, "${}\r\n{word}\r\n", word.len()).unwrap();
            }
        }
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        commands.iter().map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" => Reply::Text(Some(rest.to_owned())),
            ":" => Reply::Number(rest.parse().unwrap()),
            "$" if rest == "-1" => Reply::Text(None),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Reply::Text(Some(String::from_utf8(bytes).unwrap()))
            }
            "*" => Reply::List((0..rest.parse::<usize>().unwrap()).map(|_| self.reply()).collect()),
            _ => panic!("redis said {line:?}"),
        }
    }

    pub(crate) fn dbsize(&mut self) -> u64 {
        match self.ask(&["DBSIZE"]) {
            Reply::Number(size) => u64::try_from(size).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Ends every other connection of a client, and returns how many there were.
    pub(crate) fn kill_others(&mut self) -> u64 {
        match self.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]) {
            Reply::Number(killed) => u64::try_from(killed).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// How many keys have names of this pattern.
    pub(crate) fn count_named(&mut self, pattern: &str) -> usize {
        self.ask(&["KEYS", pattern]).list().len()
    }

    /// Every key with its value: the fields of a hash, or the members of a JSON object without nulls.
    pub(crate) fn everything(&mut self) -> HashMap<String, Fields> {
        let mut keys = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut page = self.ask(&["SCAN", &cursor, "COUNT", "5000"]).list();
            let found = page.pop().unwrap().list();
            keys.extend(found.into_iter().map(|key| key.text().unwrap()));
            cursor = page.pop().unwrap().text().unwrap();
            if cursor == "0" {
                break;
            }
        }
        let types: Vec<Vec<String>> =
            keys.iter().map(|key| vec!["TYPE".to_owned(), key.clone()]).collect();
        let mut all = HashMap::new();
        for (keys, types) in keys.chunks(PIPELINE).zip(types.chunks(PIPELINE)) {
            let kinds: Vec<String> =
                self.pipeline(types).into_iter().map(|kind| kind.text().unwrap()).collect();
            let reads: Vec<Vec<String>> = keys
                .iter()
                .zip(&kinds)
                .map(|(key, kind)| {
                    let command = match kind.as_str() {
                        "hash" => "HGETALL",
                        "ReJSON-RL" => "JSON.GET",
                        _ => "GET",
                    };
                    vec![command.to_owned(), key.clone()]
                })
                .collect();
            for (key, value) in keys.iter().zip(self.pipeline(&reads)) {
                all.insert(key.clone(), fields(value));
            }
        }
        all
    }
}

pub(crate) fn fields(value: Reply) -> Fields {
    match value {
        Reply::List(list) => {
            let texts: Vec<String> = list.into_iter().map(|word| word.text().unwrap()).collect();
            texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        }
        Reply::Text(Some(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| {
                    (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                })
                .collect(),
            _ => Fields::from([("text".to_owned(), text)]),
        },
        other => panic!("{other:?}"),
    }
}

/// What Redis must hold: every row of the table, read by SQL. `columns` of a, b and c.
pub(crate) fn wanted(world: &World, columns: &str) -> HashMap<String, Fields> {
    let rows = world.sql(
        "select id, a, coalesce(b::text, ''), coalesce(to_char(c at time zone 'UTC', \
         'YYYY-MM-DD\"T\"HH24:MI:SS') || replace(to_char(c at time zone 'UTC', '.US'), '.000000', '') || 'Z', '') \
         from items",
    );
    rows.lines()
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            let fields = ["a", "b", "c"]
                .iter()
                .zip(&cells[1..])
                .filter(|(name, cell)| columns.contains(**name) && !cell.is_empty())
                .map(|(name, cell)| ((*name).to_owned(), (*cell).to_owned()))
                .collect();
            (format!("item:{}", cells[0]), fields)
        })
        .collect()
}

/// Asserts that Redis holds every row with every field, and nothing else.
#[track_caller]
pub(crate) fn assert_complete(world: &World) {
    assert_columns(world, "abc");
}

#[track_caller]
pub(crate) fn assert_columns(world: &World, columns: &str) {
    let wanted = wanted(world, columns);
    let found = Wire::open(world).everything();
    let missing: Vec<_> = wanted.keys().filter(|key| !found.contains_key(*key)).take(3).collect();
    let extra: Vec<_> = found.keys().filter(|key| !wanted.contains_key(*key)).take(3).collect();
    let different: Vec<_> = wanted
        .iter()
        .filter_map(|(key, fields)| Some((key, fields, found.get(key)?)))
        .filter(|(_, wanted, found)| wanted != found)
        .take(3)
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty() && different.is_empty(),
        "{} wanted, {} found; missing {missing:?}; extra {extra:?}; different {different:?}",
        wanted.len(),
        found.len()
    );
}

/// What `status --json` says of the run.
pub(crate) fn standing(world: &World) -> Value {
    let ran = world.run(&["status", "--json"]).expect(0);
    ran.summary()["run"].clone()
}

pub(crate) fn partitions_done(standing: &Value) -> u64 {
    standing["routes"][0]["partitions_done"].as_u64().unwrap_or(0)
}

/// Starts a rebuild and holds it still (SIGSTOP) once it has committed twice and is past `percent` of its rows.
///
/// It has few lanes, so that the first partitions are done early.
#[track_caller]
pub(crate) fn held(world: &World, percent: u64) -> Child {
    held_with(world, percent, &[])
}

/// The same for a run with more words.
#[track_caller]
pub(crate) fn held_with(world: &World, percent: u64, more: &[&str]) -> Child {
    let last = standing(world);
    // Of a run that is resumed; one that is done says nothing about the next.
    let before = if last["status"] == "done" { 0 } else { last["rows"].as_u64().unwrap_or(0) };
    let mut child = world.start_rebuild(&[&["--lanes", "2"], more].concat());
    let mut wire = Wire::open(world);
    let mut rows = (ROWS * percent / 100).max(1);
    loop {
        wait_until("the progress", || wire.dbsize() >= rows);
        // Held, so that asking takes none of its time.
        signal(&child, Signal::SIGSTOP);
        let asked = world.run(&["status", "--json"]);
        if asked.stderr.contains("database is locked") {
            // Held in the one moment in which nobody may open the journal.
            signal(&child, Signal::SIGCONT);
            continue;
        }
        let standing = asked.expect(0).summary()["run"].clone();
        let is_at_work = standing["pid"] == child.id() && standing["rows"].as_u64() > Some(before);
        if is_at_work && partitions_done(&standing) >= 2 {
            return child;
        }
        signal(&child, Signal::SIGCONT);
        assert!(child.try_wait().unwrap().is_none(), "it ended first: {standing}");
        rows = (rows + ROWS / 50).min(ROWS * 9 / 10);
    }
}

/// Starts a rebuild and lets it come to `percent` of the rows, past its second commit.
#[track_caller]
pub(crate) fn started(world: &World, percent: u64) -> Child {
    let child = held(world, percent);
    signal(&child, Signal::SIGCONT);
    child
}

/// Starts a rebuild and kills it at about `percent` of its rows. Returns what status then says.
#[track_caller]
pub(crate) fn killed(world: &World, percent: u64) -> Value {
    let mut child = held(world, percent);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = Ran::of(&output);
    assert_eq!(output.status.signal(), Some(9), "it ended first: {}{}", said.stdout, said.stderr);
    settle(world);
    let standing = standing(world);
    assert_eq!(standing["status"], "killed", "{standing}");
    standing
}

/// Waits until Redis has carried out what the dead process had sent.
pub(crate) fn settle(world: &World) {
    let mut wire = Wire::open(world);
    wait_until("the end of the dead connections", || {
        wire.ask(&["INFO", "clients"]).text().unwrap().contains("connected_clients:1\r\n")
    });
}

/// Which of these keys Redis holds.
pub(crate) fn existing(world: &World, keys: &[String]) -> BTreeSet<String> {
    let mut wire = Wire::open(world);
    let asks: Vec<Vec<String>> =
        keys.iter().map(|key| vec!["EXISTS".to_owned(), key.clone()]).collect();
    let replies = asks.chunks(PIPELINE).flat_map(|asks| wire.pipeline(asks));
    let there = replies.zip(keys).filter(|(reply, _)| matches!(reply, Reply::Number(1)));
    there.map(|(_, key)| key.clone()).collect()
}

/// How often Redis carried a command out.
pub(crate) fn calls(world: &World, command: &str) -> u64 {
    let stats = Wire::open(world).ask(&["INFO", "commandstats"]).text().unwrap();
    let line = format!("cmdstat_{command}:calls=");
    let rest = stats.lines().find_map(|stat| stat.strip_prefix(&line)).unwrap_or("0");
    rest.split(',').next().unwrap().parse().unwrap()
}

/// Ends every session of the product in PostgreSQL, and returns how many there were.
pub(crate) fn end_sessions(world: &World) -> u64 {
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'rekindle'";
    world.sql(sql).parse().unwrap()
}

/// What decides a test that goes by chance, shown with its failure: `REKINDLE_SEED`, or any number.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("REKINDLE_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(()));
    println!("REKINDLE_SEED={seed}");
    seed
}

/// A number below `bound` from a seed that moves on.
pub(crate) fn random(seed: &mut u64, bound: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % bound
}

/// Resumes; asserts that it ends well, once resumed, and complete.
#[track_caller]
pub(crate) fn resumed(world: &World) -> Value {
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["status"], &summary["resumed"]), (&"done".into(), &1.into()), "{summary}");
    assert_complete(world);
    summary
}

/// Signals a process that is known to be alive.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// Waits until a process has sent itself the SIGSTOP of a point that holds.
#[track_caller]
pub(crate) fn wait_for_stop(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    let is_stopped = || fs::read_to_string(&status).is_ok_and(|text| text.contains("State:\tT"));
    wait_until("the stop", is_stopped);
}
