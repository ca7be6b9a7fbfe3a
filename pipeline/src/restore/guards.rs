//! What must hold before a restore begins: rows stay hidden from whom they were hidden, and a row key tells rows apart.
//!
//! Invariant: rows that row access policies hid are published without them only for a table that was named by flag,
//! and every policy is named before anything is published.

use super::open::Opening;
use super::table::Way;
use schemas::manifest::TableRecord;
use serde_json::Value;
use stages::connect::bigquery::BigQuery;
use stages::{Error, Kind, Result};

/// Types whose equality in SQL is equality of values. Not FLOAT64 (NaN equals nothing), nor INTERVAL (a month equals
/// 30 days); JSON, GEOGRAPHY, RECORD and RANGE cannot be joined by `=`.
const KEY_TYPES: [&str; 13] = [
    "STRING",
    "BYTES",
    "INTEGER",
    "INT64",
    "NUMERIC",
    "BIGNUMERIC",
    "BOOLEAN",
    "BOOL",
    "DATE",
    "TIME",
    "DATETIME",
    "TIMESTAMP",
    "DECIMAL",
];

/// A row access policy, as far as BigQuery tells: whom it was granted to is in no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    id: String,
    filter: Option<String>,
}

impl Policy {
    fn of(policy: &Value) -> Self {
        let id = policy.pointer("/rowAccessPolicyReference/policyId").and_then(Value::as_str);
        Self {
            id: id.unwrap_or("(unnamed)").to_owned(),
            filter: policy["filterPredicate"].as_str().map(str::to_owned),
        }
    }

    /// Names it, with the statement that makes it again.
    fn line(&self, name: &str) -> String {
        let filter = self.filter.as_deref().unwrap_or("…");
        format!(
            "not put back on {name}: row access policy {id}; every reader of the table sees all its rows until you run: CREATE ROW ACCESS POLICY `{id}` ON `{name}` GRANT TO (…) FILTER USING ({filter})",
            id = self.id
        )
    }
}

/// The policies of a list as BigQuery returns it.
pub(super) fn policies(list: Option<&Value>) -> Vec<Policy> {
    list.and_then(Value::as_array).into_iter().flatten().map(Policy::of).collect()
}

/// The policies that readers will be without: those recorded and those of the table that is there.
///
/// A copy job into a table takes away its policies unless it appends; a MERGE leaves them.
pub(super) fn lost_policies(recorded: &[Policy], present: &[Policy], way: Way) -> Vec<Policy> {
    if way == Way::Rows && !present.is_empty() {
        return Vec::new();
    }
    let mut lost = recorded.to_vec();
    for policy in present {
        if lost.iter().all(|known| known.id != policy.id) {
            lost.push(policy.clone());
        }
    }
    lost
}

/// Names policies that are lost, or refuses to lose them where the table was not named.
pub(super) fn name_policies(
    name: &str,
    lost: &[Policy],
    accepted: &[String],
) -> Result<Vec<String>> {
    if lost.is_empty() || accepted.iter().any(|table| table == name) {
        return Ok(lost.iter().map(|policy| policy.line(name)).collect());
    }
    let names: Vec<String> = lost.iter().map(|policy| policy.id.clone()).collect();
    let message = format!(
        "table {name} has row access policies, which cannot be put back: {}; restored, every reader of it would see all rows",
        super::duplicate::named(&names)
    );
    Err(Error::new(Kind::Config, message).with_hint(format!(
        "keep readers away from it, then restore and make them again: rekindle restore bigquery --accept-no-row-policies {name}"
    )))
}

/// The policies of the table that is there; a line instead where they may not be read.
pub(super) async fn present_policies(
    bigquery: &BigQuery,
    dataset: &str,
    table: &str,
) -> Result<(Vec<Policy>, Option<String>)> {
    match bigquery.row_access_policies(dataset, table).await {
        Ok(list) => Ok((list.iter().map(Policy::of).collect(), None)),
        Err(error) if error.kind().is_transient() => Err(error),
        Err(error) => Ok((
            Vec::new(),
            Some(format!(
                "whether {dataset}.{table} has row access policies now is not known ({error}); a copy would take them away"
            )),
        )),
    }
}

/// Refuses a key whose type cannot tell rows apart in SQL.
pub(super) fn check_key_type(record: &TableRecord, key: &str) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::new(Kind::Config, format!("row_key {key} of {}: {what}", record.table))
            .with_hint("name another row_key in the plan, or restore with --replace"))
    };
    let fields = record.resource.pointer("/schema/fields").and_then(Value::as_array);
    let named =
        |field: &&Value| field["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(key));
    let Some(field) = fields.into_iter().flatten().find(named) else {
        return refuse("the table has no such column".to_owned());
    };
    let kind = field["type"].as_str().unwrap_or_default();
    if field["mode"].as_str() == Some("REPEATED") || !KEY_TYPES.contains(&kind) {
        return refuse(format!("a column of type {kind} cannot tell rows apart"));
    }
    let collations = [&field["collation"], &record.resource["defaultCollation"]];
    if collations.iter().any(|collation| collation.as_str().is_some_and(|text| !text.is_empty())) {
        return refuse("its collation makes different texts equal".to_owned());
    }
    Ok(())
}

impl Opening<'_> {
    /// Refuses what must not begin, and returns what is to be said before it does.
    pub(super) async fn guard(
        &self,
        recorded: &TableRecord,
        existing: Option<&Value>,
        way: Way,
    ) -> Result<Vec<String>> {
        if let (Way::Rows, Some(key)) = (way, &self.route.backup.row_key) {
            check_key_type(recorded, key)?;
        }
        let (present, unknown) = match existing {
            Some(_) => {
                let list = || present_policies(&self.shared.bigquery, self.dataset, self.table);
                self.shared.patiently(list).await?
            }
            None => (Vec::new(), None),
        };
        let lost = lost_policies(&policies(recorded.row_access_policies.as_ref()), &present, way);
        let accepted = &self.options.asked.accept_no_row_policies;
        let mut lines = name_policies(&self.name(), &lost, accepted)?;
        lines.extend(unknown);
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(id: &str) -> Value {
        json!({"rowAccessPolicyReference": {"policyId": id}, "filterPredicate": "region = 'eu'"})
    }

    #[test]
    fn policies_are_lost_by_every_copy_and_by_a_table_that_has_none() {
        let recorded = policies(Some(&json!([policy("eu")])));
        let present = policies(Some(&json!([policy("eu"), policy("us")])));
        let ids = |lost: Vec<Policy>| lost.into_iter().map(|p| p.id).collect::<Vec<_>>();
        assert_eq!(ids(lost_policies(&recorded, &present, Way::Whole)), ["eu", "us"]);
        assert_eq!(ids(lost_policies(&[], &present, Way::Partitions)), ["eu", "us"]);
        assert_eq!(ids(lost_policies(&recorded, &[], Way::Rows)), ["eu"]);
        assert!(lost_policies(&recorded, &present, Way::Rows).is_empty());
    }

    #[test]
    fn a_table_with_policies_is_refused_unless_it_is_named_and_then_they_are() {
        let lost = policies(Some(&json!([policy("eu")])));
        let error = name_policies("d.t", &lost, &["d.u".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("policies, which cannot be put back: eu"), "{error}");
        assert!(error.hint().unwrap().ends_with("--accept-no-row-policies d.t"));
        let lines = name_policies("d.t", &lost, &["d.t".to_owned()]).unwrap();
        assert!(lines[0].ends_with("FILTER USING (region = 'eu')"), "{lines:?}");
        assert_eq!(name_policies("d.t", &[], &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn keys_are_columns_whose_equality_is_that_of_values() {
        let record = |field: Value| {
            let resource =
                json!({"id": "p:d.t", "creationTime": "1", "schema": {"fields": [field]}});
            TableRecord::new("d", "t", &resource).unwrap()
        };
        for kind in ["STRING", "INTEGER", "TIMESTAMP", "NUMERIC"] {
            assert!(check_key_type(&record(json!({"name": "K", "type": kind})), "k").is_ok());
        }
        for field in [
            json!({"name": "k", "type": "FLOAT"}),
            json!({"name": "k", "type": "JSON"}),
            json!({"name": "k", "type": "GEOGRAPHY"}),
            json!({"name": "k", "type": "RECORD"}),
            json!({"name": "k", "type": "INTERVAL"}),
            json!({"name": "k", "type": "STRING", "mode": "REPEATED"}),
            json!({"name": "k", "type": "STRING", "collation": "und:ci"}),
            json!({"name": "other", "type": "STRING"}),
        ] {
            let error = check_key_type(&record(field.clone()), "k").unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{field}");
        }
    }
}
