//! BigQuery over TLS with the key of a service account: tokens that expire and tokens that are refused.
//!
//! Invariant: the stand-in refuses every call without a token that holds, so that what ends well has shown one each time.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::world::Ran;
use fixtures::servers::{Certificate, RedisOptions, TlsFront};
use redis::Commands as _;
use serde_json::{Value, json};
use std::fs;

/// A cloud whose BigQuery is behind TLS, with the file of a service account.
struct Guarded {
    cloud: Cloud,
    certificate: Certificate,
    fronts: [TlsFront; 2],
}

impl Guarded {
    fn new() -> Self {
        let cloud = Cloud::new(RedisOptions::default(), ROUTE);
        cloud.table(DAY_PARTITIONED);
        for day in 1..=6 {
            cloud.insert(day, day * 1_000..day * 1_000 + 300);
        }
        let certificate = Certificate::create().unwrap();
        let front = |url: String, protocol| TlsFront::start(&url, &certificate, protocol).unwrap();
        let fronts =
            [front(cloud.bigquery.rest_url(), "http/1.1"), front(cloud.bigquery.grpc_url(), "h2")];
        let plan = fs::read_to_string(cloud.folder.path().join("rekindle.toml")).unwrap();
        let plan = plan
            .replace(&cloud.bigquery.rest_url(), &fronts[0].url())
            .replace(&cloud.bigquery.grpc_url(), &fronts[1].url());
        fs::write(cloud.folder.path().join("rekindle.toml"), plan).unwrap();
        let key = json!({
            "type": "service_account", "project_id": "p", "private_key_id": "1",
            "private_key": fs::read_to_string(certificate.key()).unwrap(),
            "client_email": "rekindle@p.iam.gserviceaccount.com", "client_id": "1",
            "auth_uri": fronts[0].url(), "token_uri": format!("{}/token", fronts[0].url()),
        });
        fs::write(cloud.folder.path().join("account.json"), key.to_string()).unwrap();
        Self { cloud, certificate, fronts }
    }

    /// Runs the program, which trusts the certificate and finds the key where Google's own tools look for it.
    fn run(&self, words: &[&str]) -> Ran {
        let mut command = self.cloud.command(words);
        command
            .env("SSL_CERT_FILE", self.certificate.path())
            .env("GOOGLE_APPLICATION_CREDENTIALS", self.cloud.folder.path().join("account.json"));
        Ran::of(&command.output().unwrap())
    }

    fn require(&self, lifetime_seconds: u64, calls_max: u64) {
        let rules = json!({"lifetime_seconds": lifetime_seconds, "calls_max": calls_max});
        self.cloud.post("stand-in/tokens", &rules);
    }

    /// The same where only so many tokens hold, and those given out after them never do.
    fn require_at_most(&self, tokens_max: u64, lifetime_seconds: u64, calls_max: u64) {
        let rules = json!({
            "lifetime_seconds": lifetime_seconds, "calls_max": calls_max, "tokens_max": tokens_max,
        });
        self.cloud.post("stand-in/tokens", &rules);
    }

    /// Ends the requirement and returns tokens given out, calls made with one, and calls refused.
    fn ended(&self) -> [u64; 3] {
        let url = format!("{}/stand-in/tokens", self.cloud.bigquery.rest_url());
        let told = self.cloud.call(reqwest::Client::new().delete(url));
        ["given", "calls", "refused"].map(|what| told[what].as_u64().unwrap())
    }
}

#[test]
fn every_call_shows_a_token_and_one_that_is_refused_is_fetched_anew_once() {
    let guarded = Guarded::new();
    let words = Cloud::words(&[]);

    // GIVEN a service that takes a token for an hour THEN one is enough for a whole backup
    guarded.require(3_600, u64::MAX);
    let summary = guarded.run(&words).expect(0).summary();
    assert_eq!((&summary["rows"], &summary["status"]), (&1_800.into(), &"done".into()));
    let [given, calls, refused] = guarded.ended();
    assert!((given, refused) == (1, 0) && calls > 10, "{given} {calls} {refused}");

    // WHEN the service refuses it in the middle of a run THEN a new one is fetched, and nothing fails
    let restore = |calls_max| {
        guarded.cloud.delete_table();
        guarded.require(3_600, calls_max);
        let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "2s"];
        let summary = guarded.run(&words).expect(0).summary();
        assert_eq!(summary["rows"], 1_800);
        let [given, calls, refused] = guarded.ended();
        let rows = guarded.cloud.sql("SELECT COUNT(*), MIN(id), MAX(id) FROM d.t");
        assert_eq!(rows, ["1800|1000|6299"]);
        (given, calls, refused)
    };
    let (given, calls, refused) = restore(u64::MAX);
    assert_eq!((given, refused), (1, 0));
    let (given, _, refused) = restore(calls * 2 / 3);
    assert!(given == 2 && (1..=16).contains(&refused), "{given} {refused}");

    // AND where it refuses the new one too, the run stops at once, and shows neither token nor key
    guarded.require(3_600, 0);
    let says =
        ["bigquery refused the token, and a new one too", "its key or session was not revoked"];
    let ran = guarded.run(&words).expect(2).says(&says);
    let key = fs::read_to_string(guarded.certificate.key()).unwrap();
    assert!(!ran.stderr.contains("Bearer") && !ran.stderr.contains(key.lines().nth(1).unwrap()));
    assert_eq!(guarded.ended(), [2, 0, 2]);

    // AND in the middle of a run, by REST or gRPC: what was committed stays, and the next one goes on
    guarded.cloud.delete_table();
    guarded.require_at_most(1, 3_600, calls / 2);
    let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "20s"];
    guarded.run(&words).expect(2).says(&["bigquery refused the token, and a new one too"]);
    let [given, _, refused] = guarded.ended();
    assert!(given == 2 && (2..=16).contains(&refused), "{given} {refused}");
    guarded.require(3_600, u64::MAX);
    guarded.run(&words).expect(0);
    guarded.ended();
    let rows = guarded.cloud.sql("SELECT COUNT(*), MIN(id), MAX(id) FROM d.t");
    assert_eq!(rows, ["1800|1000|6299"]);
}

#[test]
fn a_token_that_held_is_fetched_anew_as_often_as_it_is_refused() {
    let guarded = Guarded::new();
    // GIVEN tokens that are good for a few calls each, whatever they were said to live
    guarded.require(3_600, 8);
    let summary = guarded.run(&Cloud::words(&["--lanes", "1"])).expect(0).summary();
    assert_eq!((&summary["rows"], &summary["status"]), (&1_800.into(), &"done".into()));
    let [given, calls, refused] = guarded.ended();
    // THEN each of them was used up, and every refusal led to a new one
    assert!(given >= 3 && calls > 16 && refused >= given - 1, "{given} {calls} {refused}");
}

#[test]
fn a_token_is_fetched_anew_before_it_expires() {
    let guarded = Guarded::new();
    // The library asks for another one a minute before the end: of these, before every call.
    guarded.require(60, u64::MAX);
    guarded.run(&Cloud::words(&[])).expect(0);
    let [given, calls, refused] = guarded.ended();
    assert!(calls > 10 && given >= calls && refused == 0, "{given} {calls} {refused}");
}

#[test]
fn a_server_that_is_not_trusted_and_endpoints_of_two_kinds_are_refused() {
    let guarded = Guarded::new();
    guarded.require(3_600, u64::MAX);
    // Whose certificate is unknown is shown nothing.
    let mut command = guarded.cloud.command(&Cloud::words(&[]));
    command.env("GOOGLE_APPLICATION_CREDENTIALS", guarded.cloud.folder.path().join("account.json"));
    Ran::of(&command.output().unwrap()).expect(3).says(&["cannot get an access token"]);
    assert_eq!(guarded.ended(), [0, 0, 0]);

    let plan = guarded.cloud.folder.path().join("rekindle.toml");
    let text = fs::read_to_string(&plan).unwrap();
    let mixed = text.replace(&guarded.fronts[1].url(), &guarded.cloud.bigquery.grpc_url());
    fs::write(&plan, mixed).unwrap();
    let says = ["one endpoint of [bigquery] is https:// and the other is not", "hint: name both"];
    guarded.run(&Cloud::words(&[])).expect(2).says(&says);
    let found: Value =
        json!(guarded.cloud.connection().get::<_, Option<String>>("log:run").unwrap());
    assert_eq!(found, Value::Null, "something was written");
}
