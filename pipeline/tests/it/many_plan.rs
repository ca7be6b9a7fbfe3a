//! Keys of many rows: what a plan may not ask, nulls, collisions, and texts that compare as equal and are not.

use crate::carried::of_route;
use crate::many::{BUILDS, Held, assert_held, every_layout, held, route};
use crate::world::World;

#[test]
fn what_cannot_be_read_in_the_order_of_its_keys_is_refused_by_name() {
    let world = World::new();
    world.sql(BUILDS);
    let zset = |key: &str, member: &str, more: &str| {
        route("z", "zset", key, member, &format!("score = \"started\"\n{more}"))
    };
    for (plan, said) in [
        (zset("a:{author|lower}", "{id}", ""), "author cannot be read back from the key"),
        (zset("a:{started|date:%Y}", "{id}", ""), "started cannot be read back from the key"),
        (zset("a:{repo}{author}", "{id}", ""), "no literal between"),
        (zset("a:{repo}", "{author|lower}", ""), "author cannot be read back from the member"),
        (zset("a:{repo}", "{id}", "split_by = \"author\""), "must be a column of the key"),
        (zset("a:{repo}", "{id}", "use = [\"backup\"]"), "no table can be restored from them"),
        (zset("{{}}a:{repo}", "{id}", ""), "an empty hash tag"),
        (zset("{{a:{repo}", "{id}", ""), "never closes it"),
        (zset("a:{repo}", "{id}", "columns = [\"status\"]"), "made by \"member\""),
        (zset("a:{repo}", "{ids}", ""), "unknown column ids; did you mean id?"),
        (route("z", "zset", "a:{repo}", "{id}", ""), "field \"score\" is missing"),
        (route("z", "zset", "a:{repo}", "{id}", "score = \"author\""), "a score is a number"),
        (route("z", "zset", "a:{repo}", "{id}", "score = \"id|ms\""), "|ms goes with a time"),
        (route("l", "list", "a:{repo}", "{id}", ""), "field \"order_by\" is missing"),
        (
            route("s", "set", "a:{repo}", "{id}", "on_collision = \"error\""),
            "equal members of a set",
        ),
        (route("h", "hash", "a:{repo}", "{id}", ""), "the one column that is the value"),
        (
            route("h", "hash", "a:{repo}", "{id}", "columns = [\"id\", \"repo\"]"),
            "one column, not 2",
        ),
    ] {
        world.plan(&plan);
        world.rebuild(&[]).expect(2).says(&[said]);
    }
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    // A restore that is asked of such a route is refused with its name.
    world.plan(&zset("a:{repo}", "{id}", ""));
    let ran = world.run(&["restore", "bigquery", "--route", "z"]).expect(2);
    ran.says(&["route z cannot be restored", "many rows make one key"]);
}

#[test]
fn nulls_are_left_out_or_empty_or_rejected() {
    let world = World::new();
    world.sql(
        "create table builds (id bigint primary key, repo int, author text, at timestamptz, v text); \
         insert into builds values (1, 1, 'a', '2024-01-01Z', 'x'), (2, 1, null, '2024-01-02Z', 'y'), \
         (3, 1, 'c', null, null), (4, null, 'd', '2024-01-04Z', 'z'), (5, 2, null, null, null)",
    );
    let plan = |null: &str| {
        let more = |more: &str| format!("null = \"{null}\"\nrejects_max = 100\n{more}");
        [
            route("s", "set", "s:{repo}", "{author}", &more("")),
            route("z", "zset", "z:{repo}", "{author}", &more("score = \"at\"")),
            route("h", "hash", "h:{repo}", "{author}", &more("columns = [\"v\"]")),
        ]
        .concat()
    };
    let rejects = |null: &str| {
        world.redis(&["FLUSHALL"]);
        world.plan(&plan(null));
        let summary = world.rebuild(&[]).expect(0).summary();
        ["s", "z", "h"].map(|name| {
            let counts = of_route(&summary, name);
            assert_eq!(counts["rows"], 5);
            counts["rejects"].as_u64().unwrap()
        })
    };
    let keys = |pairs: &[(&str, &[&str])]| -> Held {
        let owned = |elements: &[&str]| elements.iter().map(|e| (*e).to_owned()).collect();
        pairs.iter().map(|(key, elements)| ((*key).to_owned(), owned(elements))).collect()
    };
    assert_eq!(rejects("omit"), [1, 1, 1]);
    assert_held(
        &world,
        &keys(&[("s:1", &["a", "c"]), ("z:1", &["a|1704067200"]), ("h:1", &["a|x"])]),
    );
    assert_eq!(rejects("error"), [3, 4, 4]);
    assert_held(
        &world,
        &keys(&[("s:1", &["a", "c"]), ("z:1", &["a|1704067200"]), ("h:1", &["a|x"])]),
    );
    assert_eq!(rejects("empty"), [1, 3, 1]);
    assert_held(
        &world,
        &keys(&[
            ("s:1", &["", "a", "c"]),
            ("s:2", &[""]),
            ("z:1", &["a|1704067200", "|1704153600"]),
            ("h:1", &["a|x", "c|", "|y"]),
            ("h:2", &["|"]),
        ])
        .into_iter()
        .map(|(key, mut elements)| {
            elements.sort();
            (key, elements)
        })
        .collect(),
    );
}

#[test]
fn a_member_with_two_scores_ends_the_run_or_the_last_one_wins() {
    let world = World::new();
    world.sql(
        "create table builds (id bigint primary key, repo int, author text, v int); \
         insert into builds select i, 1 + i % 3, 'a' || i % 500, i from generate_series(1, 30000) i",
    );
    let plan = |more: &str| {
        [
            route("z", "zset", "z:{repo}", "{author}", &format!("score = \"v\"\n{more}")),
            route("h", "hash", "h:{repo}", "{author}", &format!("columns = [\"v\"]\n{more}")),
            route("s", "set", "s:{repo}", "{author}", ""),
        ]
        .concat()
    };
    // GIVEN members that come again THEN the run ends before anything is written
    world.plan(&plan(""));
    let said = ["members of its keys have several scores", "on_collision = \"last\""];
    world.rebuild(&[]).expect(2).says(&said);
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    // AND with an order the last one stays
    world.plan(&plan("on_collision = \"last\"\norder_by = \"v\""));
    let summary = world.rebuild(&["--fresh"]).expect(0).summary();
    assert_eq!(of_route(&summary, "z")["written"], 30_000);
    let mut wanted = Held::new();
    for line in world.sql("select repo, author, max(v) from builds group by 1, 2").lines() {
        let cells: Vec<&str> = line.split('|').collect();
        let (repo, author, v) = (cells[0], cells[1], cells[2]);
        wanted.entry(format!("z:{repo}")).or_default().push(format!("{author}|{v}"));
        wanted.entry(format!("h:{repo}")).or_default().push(format!("{author}|{v}"));
        wanted.entry(format!("s:{repo}")).or_default().push(author.to_owned());
    }
    for elements in wanted.values_mut() {
        elements.sort();
    }
    assert_held(&world, &wanted);
    // AND what is equal in both is one, without any order
    world.sql("update builds set v = 7");
    world.plan(&plan(""));
    world.rebuild(&[]).expect(0);
    assert!(held(&world).iter().all(|(key, elements)| {
        key.starts_with("s:") || elements.iter().all(|element| element.ends_with("|7"))
    }));
}

#[test]
fn texts_that_compare_as_equal_are_keys_of_their_own() {
    // GIVEN columns whose equality is wider than that of their texts, in an order that mixes them
    let world = World::new();
    world.sql(
        "create collation ci (provider = icu, locale = 'und-u-ks-level1', deterministic = false); \
         create table builds (id bigint primary key, t text collate ci, n numeric, b bpchar, e text collate \"en-x-icu\"); \
         insert into builds select i, (array['a', 'A', 'á', 'Á', 'ä', 'b', 'B:', '', ' ', 'ß', 'ss', '日本'])[1 + i % 12], \
         (array[1, 1.0, 1.00, 2, 2.50, 2.5])[1 + i % 6], (array['x', 'x ', 'x  ', 'y'])[1 + i % 4], \
         (array['a-b', 'ab', 'A b', 'a_b', 'a b', 'AB'])[1 + i % 6] from generate_series(1, 40000) i",
    );
    let mut plan = String::new();
    for column in ["t", "n", "b", "e"] {
        plan +=
            &route(column, "list", &format!("{column}:{{{column}}}"), "{id}", "order_by = \"id\"");
        let member = format!("{{{column}}}");
        plan += &route(&format!("m{column}"), "set", &format!("m{column}:{{id}}"), &member, "")
            .replace("{id}", "{n}");
    }
    plan += &route("two", "list", "two:{t|urlencode}:{n}", "{id}", "order_by = \"id\"");
    world.plan(&plan);
    let summary = world.rebuild(&["--lanes", "3"]).expect(0).summary();
    assert_eq!(summary["rows"], 9 * 40_000);
    let mut wanted = Held::new();
    let mut add = |sql: &str| {
        for line in world.sql(sql).lines() {
            // Keys may end in blanks, which count.
            let (key, element) = line.split_once('|').unwrap();
            wanted.entry(key.to_owned()).or_default().push(element.to_owned());
        }
    };
    for column in ["t", "n", "b", "e"] {
        add(&format!("select concat('{column}:', {column}, '|', id) from builds order by id"));
        add(&format!(
            "select distinct concat('m{column}:', n, '|', {column}) collate \"C\" from builds order by 1"
        ));
    }
    let encoded = "replace(replace(replace(replace(replace(replace(replace(replace(replace(t collate \"C\", ' ', '%20'), ':', '%3A'), \
         'á', '%C3%A1'), 'Á', '%C3%81'), 'ä', '%C3%A4'), 'ß', '%C3%9F'), '日', '%E6%97%A5'), '本', '%E6%9C%AC'), '~', '~')";
    add(&format!("select concat('two:', {encoded}, ':', n, '|', id) from builds order by id"));
    for (key, elements) in &mut wanted {
        if key.starts_with('m') {
            elements.sort();
        }
    }
    assert_held(&world, &wanted);
}

#[test]
fn a_sample_shows_what_rows_become() {
    let world = World::new();
    world.sql(BUILDS);
    world.plan(&every_layout());
    let ran = world.run(&["plan", "--sample", "2"]).expect(0);
    for text in [
        "SADD authors:",
        "ZADD repo:",
        "RPUSH latest:",
        "HSET statuses:",
        "a run writes all rows of a key at once",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    // What the plan says of such a route.
    for text in [
        "many rows make one key",
        "starts over, because a key is made of many rows",
        "keeps partitions whose rows are as they were read",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
}

#[test]
fn texts_of_citext_are_keys_and_members_of_their_own() {
    // GIVEN a type that takes letters for equal whatever their case, carried as its text
    let world = World::new();
    world.sql(
        "create extension citext; create table builds (id bigint primary key, t citext, m citext); \
         create index on builds (t); \
         insert into builds select i, (array['a', 'A', 'b', 'Ä', 'ä', ''])[1 + i % 6], (array['x', 'X', 'y'])[1 + i % 5 % 3] \
         from generate_series(1, 30000) i",
    );
    let as_text = "as_text = [\"t\", \"m\"]\n";
    world.plan(
        &[
            route("list", "list", "l:{t}", "{id}", &format!("order_by = \"id\"\n{as_text}")),
            route("set", "set", "s:{t}", "{m}", as_text),
        ]
        .concat(),
    );
    world.rebuild(&["--lanes", "3"]).expect(0);
    let mut wanted = Held::new();
    for sql in [
        "select 'l:' || t::text || '|' || id from builds order by id",
        "select distinct ('s:' || t::text || '|' || m::text) collate \"C\" from builds order by 1",
    ] {
        for line in world.sql(sql).lines() {
            let (key, element) = line.split_once('|').unwrap();
            wanted.entry(key.to_owned()).or_default().push(element.to_owned());
        }
    }
    assert_eq!(wanted.len(), 12);
    assert_held(&world, &wanted);
}
