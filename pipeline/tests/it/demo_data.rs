//! The demo data sets, rebuilt whole and compared by means that share nothing with the product.

use crate::world::World;

/// `--json` makes redis-cli print nested replies as JSON.
const READ_ALL: &str =
    "local r = {} for i = 1, #KEYS do r[i] = redis.call('HGETALL', KEYS[i]) end return r";

fn plan_words(name: &str) -> [String; 2] {
    ["--plan".to_owned(), fixtures::plan_path(name).display().to_string()]
}

#[test]
fn pgbench_accounts_arrive_field_by_field() {
    let world = World::new();
    fixtures::pgbench::init(&world.postgres, 1).unwrap();
    let [flag, plan] = plan_words("pgbench");
    let summary = world.rebuild(&[&flag, &plan]).expect(0).summary();
    assert_eq!(summary["rows"], 100_011, "{summary:#}");
    assert_eq!(world.redis.dbsize().unwrap(), 100_011);

    let sql = "select 'account:' || aid, bid, abalance, filler from pgbench_accounts \
               order by md5(aid::text) limit 1000";
    let rows = world.postgres.psql(sql).unwrap();
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split('|').collect()).collect();
    let keys: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let words = [&["--json", "EVAL", READ_ALL, "1000"][..], &keys].concat();
    let found: Vec<Vec<String>> = serde_json::from_str(&world.redis(&words)).unwrap();
    assert_eq!((rows.len(), found.len()), (1000, 1000));
    for (row, found) in rows.iter().zip(found) {
        // The order of a hash's fields is the server's.
        let mut found: Vec<Vec<&str>> =
            found.chunks(2).map(|pair| pair.iter().map(String::as_str).collect()).collect();
        found.sort_unstable();
        let wanted = [["abalance", row[2]], ["bid", row[1]], ["filler", row[3]]];
        assert_eq!(found, wanted, "{}", row[0]);
    }
    // A null is no field.
    assert_eq!(world.redis(&["HGETALL", "branch:1"]), "bbalance\n0");
    assert_eq!(world.redis(&["HGETALL", "teller:10"]), "bid\n1\ntbalance\n0");
}

#[test]
fn code_town_arrives_without_a_difference() {
    let world = World::new();
    fixtures::code_town::load(&world.postgres, 4000).unwrap();
    let [flag, plan] = plan_words("code-town");
    let summary = world.rebuild(&[&flag, &plan]).expect(0).summary();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (alloydb_url, redis_url) = (world.postgres.url(), world.redis.url());
    let proving = fixtures::prove::prove("code-town", &alloydb_url, &redis_url);
    let proof = runtime.block_on(proving).unwrap();
    assert!(proof.is_equal(), "{proof:#?}");
    let proven: u64 = proof.routes.iter().map(|route| route.rows).sum();
    let expired: u64 = proof.routes.iter().map(|route| route.expired).sum();
    assert_eq!(summary["rows"], proven);
    assert_eq!(summary["expired"], expired);
    assert_eq!(proof.dbsize, proven - expired);
}

#[test]
fn keys_of_many_rows_of_code_town_arrive_without_a_difference() {
    let world = World::new();
    fixtures::code_town::load(&world.postgres, 20_000).unwrap();
    let [flag, plan] = plan_words("code-town-many");
    let summary = world.rebuild(&[&flag, &plan]).expect(0).summary();
    assert_eq!(summary["written"], summary["rows"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (alloydb_url, redis_url) = (world.postgres.url(), world.redis.url());
    let prove = || {
        let proving = fixtures::prove::prove("code-town-many", &alloydb_url, &redis_url);
        runtime.block_on(proving).unwrap()
    };
    let proof = prove();
    assert!(proof.is_equal(), "{proof:#?}");
    let keys: u64 = proof.routes.iter().map(|route| route.rows).sum();
    assert!(proof.dbsize == keys && keys > 100, "{proof:#?}");
    // The proof sees an element too many, one too few, another order and another score.
    let key = |suffix: &str| {
        world.sql(&format!("select 'repo:' || repo_id || ':{suffix}' from builds where status = 'failed' and author is not null group by 1 having count(*) > 1 order by count(*) desc limit 1"))
    };
    world.redis(&["SADD", &key("authors"), "nobody"]);
    world.redis(&["ZINCRBY", &key("builds"), "0.000001", "1"]);
    world.redis(&[
        "HDEL",
        &key("statuses"),
        &world.sql(&format!(
            "select min(id) from builds where 'repo:' || repo_id || ':statuses' = '{}'",
            key("statuses")
        )),
    ]);
    world.redis(&["LMOVE", &key("failures"), &key("failures"), "LEFT", "RIGHT"]);
    assert_eq!(prove().routes.iter().map(|route| route.different).sum::<u64>(), 4);
}
