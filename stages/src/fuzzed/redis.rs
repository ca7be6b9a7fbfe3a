//! Replies of Redis: the scanner of the hot path, the tokens of the reads, and what is made of them.

use super::{fuzz, route, table};
use crate::error::{Error, Kind, Result};
use crate::extract::redis_entries::{self, Ask};
use crate::extract::redis_rows::{EntryId, Held, Replies};
use crate::extract::redis_streams;
use crate::load::redis::reply::{Reply, Scanner};
use crate::transform::redis_rows::{Page, decode};
use bytes::Bytes;
use fixtures::fuzz::Told;
use schemas::plan::Plan;
use schemas::{ColumnType, ReverseRoute};

const WORDS: [&str; 14] = [
    "\r\n",
    "$-1\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*1\r\n",
    "*2\r\n",
    "$9223372036854775807\r\n",
    "*9223372036854775807\r\n",
    "+OK\r\n",
    "-WRONGTYPE x\r\n",
    ":-2\r\n",
    "$0\r\n\r\n",
    "$18446744073709551615\r\n",
    "*4294967295\r\n",
];

/// What each of the corpus says was recorded of a Redis 7.0.
fn replies() -> Vec<Vec<u8>> {
    [
        "+OK\r\n:42\r\n$-1\r\n$5\r\na\r\nbc\r\n-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        "*3\r\n:1\r\n-ERR inner\r\n*2\r\n+a\r\n$0\r\n\r\n*-1\r\n*0\r\n",
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:0\r\n:3\r\n",
        "-EXECABORT Transaction discarded because of previous errors.\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Scans pieces as they arrive and returns the replies and what is left over.
fn scan(pieces: &[&[u8]]) -> Result<(Vec<Reply>, usize)> {
    let mut scanner = Scanner::default();
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let used = scanner.scan(&buffer, &mut |reply| found.push(reply))?;
        buffer.drain(..used);
    }
    Ok((found, buffer.len()))
}

#[test]
fn replies_of_anybody_however_they_are_cut() {
    fuzz("replies", replies()).words(&WORDS).heap(1 << 20, 256).run(|input, dice| {
        let whole = scan(&[input]);
        match (&whole, scan(&dice.pieces(input))) {
            (Ok(whole), Ok(cut)) => assert_eq!(*whole, cut, "the cut changes what is read"),
            (Err(whole), Err(cut)) => {
                assert_eq!((whole.kind(), cut.kind()), (Kind::Connection, Kind::Connection));
            }
            _ => panic!("the cut changes whether it is read"),
        }
        Told::from(&whole)
    });
}

#[test]
fn tokens_of_anybody() {
    fuzz("tokens", replies()).words(&WORDS).run(|input, _| {
        let mut replies = Replies::new(input);
        let mut left = input.len() + 1;
        while !replies.is_empty() {
            assert!(replies.rest().len() < left, "a token of no bytes");
            left = replies.rest().len();
            if let Err(error) = replies.whole() {
                assert_eq!(error.kind(), Kind::Connection);
                return Told::Refused;
            }
        }
        Told::Taken
    });
}

/// An error of a read: the bytes are no replies, or replies to something else.
fn documented(error: &Error) {
    assert!(matches!(error.kind(), Kind::Connection | Kind::Internal), "{:?}", error.kind());
}

#[test]
fn rows_of_anybody() {
    let text = "[bigquery]\nproject = \"p\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"r\"\n\
                table = \"bigquery:d.t\"\nkey = \"t:{id}\"\ntype = \"hash\"\nuse = [\"backup\"]\n";
    let plan = Plan::parse(text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap();
    let schema = table(&[("id", ColumnType::Int8), ("name", ColumnType::Text)]);
    let arrow = schema.arrow();
    let route = ReverseRoute::bind(&plan.routes[0], schema).unwrap();
    let corpus = [
        "*2\r\n$4\r\nname\r\n$1\r\na\r\n*0\r\n",
        "$12\r\n{\"name\":\"a\"}\r\n$-1\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$4\r\nname\r\n$1\r\na\r\n-WRONGTYPE x\r\n",
    ];
    let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz("rows of an application", corpus).words(&WORDS).run(|input, _| {
        let keys = vec![b"t:1".to_vec(), b"t:2".to_vec()];
        let page = Page { keys, replies: Bytes::copy_from_slice(input) };
        let mut told = Told::Refused;
        for held in [Held::Hashes, Held::Texts, Held::Streams] {
            match decode(&route, &arrow, held, &page) {
                Ok(decoded) if held == Held::Streams => {
                    assert!(decoded.rows.num_rows() + decoded.rejects.len() <= input.len());
                    told = Told::Taken;
                }
                Ok(decoded) => {
                    let gone = usize::try_from(decoded.vanished).unwrap();
                    assert_eq!(decoded.rows.num_rows() + gone + decoded.rejects.len(), 2);
                    told = Told::Taken;
                }
                Err(error) => documented(&error),
            }
        }
        told
    });
}

#[test]
fn entries_of_anybody() {
    let newest = "on_conflict = \"newest\"\nversion_by = \"at\"";
    let routes = ["hash", "json", "redisjson"]
        .map(|layout| route(layout, &format!("key = \"t:{{id}}\"\n{newest}")));
    let corpus = [
        "*2\r\n$10\r\n1767225600\r\n$6\r\n123456\r\n*2\r\n$2\r\nat\r\n$20\r\n2026-01-01T00:00:00Z\r\n:-1\r\n*0\r\n:-2\r\n",
        "*2\r\n$10\r\n1767225600\r\n$1\r\n0\r\n$29\r\n{\"at\":\"2026-01-01T00:00:00Z\"}\r\n:5000\r\n$-1\r\n:-2\r\n",
        "*2\r\n$1\r\n1\r\n$1\r\n0\r\n-WRONGTYPE x\r\n:9223372036854775807\r\n",
        "*2\r\n$1\r\n1\r\n$1\r\n0\r\n:-1\r\n:-2\r\n",
    ];
    let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz("entries", corpus).words(&WORDS).run(|input, _| {
        let mut told = Told::Refused;
        for route in &routes {
            for ask in [Ask::Existence, Ask::Value] {
                let mut count = 0;
                let read = redis_entries::answers(route, ask, input, |number, _, _| {
                    assert_eq!(number, count);
                    count += 1;
                    Ok(())
                });
                match read {
                    Ok(()) => told = Told::Taken,
                    Err(error) => documented(&error),
                }
            }
        }
        told
    });
}

#[test]
fn entries_of_a_stream_of_anybody() {
    let stream = route("stream", "key = \"log\"\nuse = [\"rebuild\"]");
    let corpus = [
        "*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$4\r\nname\r\n$1\r\na\r\n*2\r\n$3\r\n2-0\r\n*0\r\n",
        "*0\r\n",
        "*-1\r\n",
        "-WRONGTYPE x\r\n",
    ];
    let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz("entries of a stream", corpus).words(&WORDS).run(|input, _| {
        let read = redis_streams::entries(&stream, input);
        if let Err(error) = &read {
            documented(error);
        }
        Told::from(&read)
    });
}

#[test]
fn an_id_of_an_entry_of_anybody() {
    let corpus =
        vec![b"1767225600000-0".to_vec(), b"18446744073709551615-18446744073709551615".to_vec()];
    fuzz("an id of an entry", corpus).words(&["-", "+", "0"]).heap(4096, 8).run(|input, _| {
        let Some(id) = EntryId::parse(input) else { return Told::Refused };
        assert_eq!(EntryId::of_number(id.number()), id);
        assert_eq!(EntryId::parse(id.to_string().as_bytes()), Some(id));
        assert!(id.after().is_none_or(|after| after > id));
        Told::Taken
    });
}
