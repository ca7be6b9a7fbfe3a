//! The text of a first plan: pure.
//!
//! Invariant: whatever a table or column is called, what is written is TOML, and a comment stays one.

use super::{Names, Systems};
use crate::wiring::{ARRIVAL_TIME, ListedBigQuery, ListedColumn};
use schemas::ColumnType;
use stages::extract::postgres::Listed;
use std::fmt::Write as _;

/// One `[[route]]`, or a comment in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    /// The lines.
    pub(super) text: String,
    /// Whether it is a route and no comment.
    pub(super) is_active: bool,
    name: String,
    prefix: String,
}

/// What stands before the routes.
pub(super) fn header(systems: &Systems) -> String {
    let mut text = String::from(
        "# A first plan, made from the schemas as they are. Before it is used, decide:\n\
         # - which tables belong into Redis at all: remove the routes of the others;\n\
         # - key, type and columns: they must be what the application reads (key templates and fields: schemas/PLAN.md);\n\
         # - expire_at or ttl, where the application lets keys expire;\n\
         # - priority: what is needed first, lower goes first;\n\
         # - [[unrouted]]: what lives in Redis and is not rebuilt; rekindle check --coverage finds it.\n\
         # Then: rekindle check, rekindle plan --sample 5, rekindle rebuild redis.\n\n\
         [objectives]\n\
         redis = { rto = \"24h\", rpo = \"24h\" }\n\
         bigquery = { rto = \"24h\", rpo = \"24h\" }\n",
    );
    if let Some(url) = &systems.alloydb {
        section(&mut text, "alloydb", &[("url", url)]);
    }
    if let Some(project) = &systems.bigquery_project {
        let mut fields = vec![("project", project)];
        if let Some((rest, grpc)) = &systems.bigquery_endpoints {
            fields.extend([("endpoint", rest), ("grpc_endpoint", grpc)]);
        }
        section(&mut text, "bigquery", &fields);
        text.push_str("# staging_dataset = \"rekindle_staging\"  # for queries and restores\n");
    }
    section(&mut text, "redis", &[("url", &systems.redis)]);
    if systems.bigquery_project.is_some() {
        text.push_str(
            "# The duplicate of BigQuery should not share the fate of the cache:\n\
             # [redis.duplicate]\n# url = \"${env:REDIS_DUPLICATE_URL}\"\n",
        );
    }
    text
}

fn section(text: &mut String, name: &str, fields: &[(&str, &String)]) {
    push(text, format_args!("\n[{name}]\n"));
    for (field, value) in fields {
        if *field == "url" && !value.contains("${") {
            text.push_str("# A password does not belong into a file: \"${env:NAME}\" takes it from outside.\n");
        }
        push(text, format_args!("{field} = {}\n", quoted(value)));
    }
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string cannot fail");
}

/// A TOML basic string. JSON has the same escapes; only DEL stands unescaped in it (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A string of the plan in which nothing is substituted.
fn literal(text: &str) -> String {
    quoted(&text.replace("${", "$${"))
}

/// A table as the plan names it.
fn table_name(schema: &str, table: &str) -> String {
    format!("{}.{}", part(schema), part(table))
}

fn part(name: &str) -> String {
    let is_special = |c: char| c.is_whitespace() || c.is_control() || ".\"".contains(c);
    if name.contains(is_special) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// A comment on one line.
fn comment(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {line}\n")
}

/// A table that has no route, with the reasons.
pub(super) fn left_out(listed: &Listed, reasons: &[String]) -> Draft {
    let table = table_name(&listed.schema, &listed.table);
    let text = format!("\n{}", comment(&format!("No route for {table}: {}", reasons.join("; "))));
    Draft { text, is_active: false, name: String::new(), prefix: String::new() }
}

/// The route of a table with a primary key; [`Draft::with_columns`] completes it.
pub(super) fn of_postgres(listed: &Listed, columns: &[ListedColumn], names: &mut Names) -> Draft {
    let Listed { schema, table, .. } = listed;
    let is_public = schema == "public";
    let name = names.route(table);
    let wanted = if is_public { table.clone() } else { format!("{schema}:{table}") };
    let prefix = names.prefix(&wanted);
    let text = postgres_text(listed, columns, &name, &prefix);
    Draft { text, is_active: true, name, prefix }
}

fn postgres_text(listed: &Listed, columns: &[ListedColumn], name: &str, prefix: &str) -> String {
    let table = table_name(&listed.schema, &listed.table);
    let mut text = String::from("\n[[route]]\n");
    push(&mut text, format_args!("name = {}\n", quoted(name)));
    push(&mut text, format_args!("table = {}\n", literal(&format!("alloydb:{table}"))));
    push(&mut text, format_args!("key = {}  # decide\n", literal(&key(listed, columns, prefix))));
    text.push_str("type = \"hash\"  # or json, redisjson, or string with one column\n");
    let refused: Vec<&ListedColumn> =
        columns.iter().filter(|column| column.column_type.is_none()).collect();
    if !refused.is_empty() {
        let of = |column: &&ListedColumn| format!("{} {}", column.name, column.type_name);
        let types: Vec<String> = refused.iter().map(of).collect();
        text.push_str(&comment(&format!(
            "Of types that are carried as their text only: {}",
            types.join(", ")
        )));
        let names: Vec<String> = refused.iter().map(|column| literal(&column.name)).collect();
        push(&mut text, format_args!("as_text = [{}]\n", names.join(", ")));
    }
    let is_in_key = |column: &ListedColumn| listed.primary_key.contains(&column.name);
    if !columns.is_empty() && columns.iter().all(is_in_key) {
        text.push_str("# Every column is in the key, and a hash needs a field:\n");
        let names: Vec<String> = columns.iter().map(|column| literal(&column.name)).collect();
        push(&mut text, format_args!("columns = [{}]\n", names.join(", ")));
    }
    let is_time = |column: &&ListedColumn| {
        matches!(
            column.column_type,
            Some(ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz)
        )
    };
    let times: Vec<&str> =
        columns.iter().filter(is_time).map(|column| column.name.as_str()).collect();
    if !times.is_empty() {
        text.push_str(&comment(&format!(
            "expire_at, ttl_from and newest_by can be: {}",
            times.join(", ")
        )));
    }
    text
}

/// `prefix:{a}:{b}` of the primary key; what may hold a colon is encoded where another column follows.
fn key(listed: &Listed, columns: &[ListedColumn], prefix: &str) -> String {
    let mut key = prefix.replace('{', "{{").replace('}', "}}");
    let last = listed.primary_key.len().saturating_sub(1);
    for (index, name) in listed.primary_key.iter().enumerate() {
        let found = columns.iter().find(|column| column.name == *name);
        let has_no_colon = found.is_none_or(|column| {
            matches!(
                column.column_type,
                Some(
                    ColumnType::Bool
                        | ColumnType::Int2
                        | ColumnType::Int4
                        | ColumnType::Int8
                        | ColumnType::Numeric
                        | ColumnType::Uuid
                        | ColumnType::Date
                )
            )
        });
        let filter = if index < last && !has_no_colon { "|urlencode" } else { "" };
        push(&mut key, format_args!(":{{{name}{filter}}}"));
    }
    key
}

impl Draft {
    /// The same route, written anew with what is known of its columns.
    pub(super) fn with_columns(self, listed: &Listed, columns: &[ListedColumn]) -> Self {
        Self { text: postgres_text(listed, columns, &self.name, &self.prefix), ..self }
    }

    /// The same lines as a comment, with what is wrong with them.
    pub(super) fn commented_out(self, problems: &[String]) -> Self {
        let mut text = String::from("\n");
        let problems: String = problems.iter().map(|problem| comment(problem)).collect();
        text.push_str(&problems);
        for line in self.text.lines().filter(|line| !line.is_empty()) {
            text.push_str(&comment(line));
        }
        Self { text, is_active: false, ..self }
    }
}

/// The duplicate of a table of BigQuery.
pub(super) fn of_bigquery(listed: &ListedBigQuery, names: &mut Names) -> Draft {
    let ListedBigQuery { dataset, table, kind, partitioned_by, times, refused } = listed;
    let name = names.route(&format!("{dataset}.{table}"));
    let prefix = names.prefix(&format!("dup:{dataset}:{table}"));
    let mut text = String::from("\n[[route]]\n");
    let full = format!("bigquery:{}", table_name(dataset, table));
    let key = prefix.replace('{', "{{").replace('}', "}}");
    push(&mut text, format_args!("name = {}\ntable = {}\n", quoted(&name), literal(&full)));
    push(&mut text, format_args!("key = {}  # a prefix\n", literal(&key)));
    text.push_str("type = \"blocks\"  # the duplicate of the table; rekindle backup bigquery\n");
    match partitioned_by.as_deref() {
        Some(ARRIVAL_TIME) => {
            text.push_str("# Partitioned by arrival time: it is backed up, and its restore is refused.\n");
        }
        Some(column) => text.push_str(&comment(&format!("Partitioned by {column}."))),
        None if times.is_empty() => {
            text.push_str("# Without table partitions and without a time: it is copied whole each time.\n");
        }
        None => text.push_str(&comment(&format!(
            "Without table partitions it is copied whole each time, unless watermark names one of: {}",
            times.join(", ")
        ))),
    }
    text.push_str(
        "# row_key = \"…\"  # a column that tells rows apart, for a restore that fills\n",
    );
    let draft = Draft { text, is_active: true, name, prefix };
    if kind != "TABLE" {
        return draft.commented_out(&[format!("{dataset}.{table} is a {kind}, and no table")]);
    }
    if refused.is_empty() {
        return draft;
    }
    let problem =
        format!("{dataset}.{table} has columns that cannot be carried: {}", refused.join(", "));
    draft.commented_out(&[problem])
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Plan;
    use stages::extract::postgres::ListedKind;

    fn systems() -> Systems {
        Systems {
            alloydb: Some("postgres://u:p\"w@h/d".into()),
            redis: "${env:REDIS_URL}".into(),
            bigquery_project: Some("p".into()),
            bigquery_endpoints: None,
        }
    }

    fn listed(schema: &str, table: &str, primary_key: &[&str]) -> Listed {
        Listed {
            schema: schema.into(),
            table: table.into(),
            kind: ListedKind::Table,
            primary_key: primary_key.iter().map(ToString::to_string).collect(),
        }
    }

    fn column(name: &str, column_type: Option<ColumnType>) -> ListedColumn {
        ListedColumn { name: name.into(), type_name: "point".into(), column_type }
    }

    fn parse(text: &str) -> Plan {
        let lookup = |_: &str| Some("redis://h".to_owned());
        let parsed = Plan::parse(text, &lookup, &|_| Err(std::io::Error::other("no file")));
        parsed.unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
    }

    #[test]
    fn whatever_tables_are_called_the_plan_parses() {
        let mut names = Names::default();
        let tables = [
            listed("public", "builds", &["id"]),
            listed("public", "Odd \"table\".x{y}", &["a", "b"]),
            listed("other", "builds", &["id"]),
            listed("public", "${env:NOPE}", &["id"]),
            listed("public", "größe\n", &["id"]),
        ];
        let columns = [
            column("a", Some(ColumnType::Text)),
            column("b", Some(ColumnType::TimestampTz)),
            column("place", None),
        ];
        let mut text = header(&systems());
        for table in &tables {
            text.push_str(&of_postgres(table, &columns, &mut names).text);
        }
        text.push_str(&left_out(&tables[4], &["a\nreason = 5".into()]).text);
        let plan = parse(&text);
        let keys: Vec<&str> = plan.routes.iter().map(|route| route.key.text()).collect();
        assert_eq!(
            keys,
            [
                "builds:{id}",
                "Odd \"table\".x{{y}}:{a|urlencode}:{b}",
                "other:builds:{id}",
                "${{env:NOPE}}:{id}",
                "größe\n:{id}"
            ]
        );
        assert_eq!(plan.routes[0].as_text, ["place"]);
        let routes: Vec<&str> = plan.routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(routes[..3], ["builds", "Odd__table_.x_y_", "builds-2"]);
    }

    #[test]
    fn a_table_of_keys_alone_gets_its_columns_as_fields() {
        let table = listed("public", "links", &["a", "b"]);
        let columns = [column("a", Some(ColumnType::Int8)), column("b", Some(ColumnType::Int8))];
        let text = of_postgres(&table, &columns, &mut Names::default()).text;
        assert!(
            text.contains("key = \"links:{a}:{b}\"") && text.contains("columns = [\"a\", \"b\"]")
        );
    }

    #[test]
    fn tables_of_bigquery_become_duplicates_or_comments() {
        let table = |kind: &str, refused: &[&str]| ListedBigQuery {
            dataset: "logs".into(),
            table: "build_logs".into(),
            kind: kind.into(),
            partitioned_by: None,
            times: vec!["ts".into()],
            refused: refused.iter().map(ToString::to_string).collect(),
        };
        let mut names = Names::default();
        let draft = of_bigquery(&table("TABLE", &[]), &mut names);
        let plan = parse(&[header(&systems()), draft.text].concat());
        assert_eq!(plan.routes[0].key.text(), "dup:logs:build_logs");
        for draft in [
            of_bigquery(&table("VIEW", &[]), &mut names),
            of_bigquery(&table("TABLE", &["x TIMESTAMP(12)"]), &mut names),
        ] {
            assert!(
                !draft.is_active && draft.text.lines().all(|l| l.is_empty() || l.starts_with("# "))
            );
        }
    }
}
