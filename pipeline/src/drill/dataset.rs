//! The scratch dataset of a drill: its mark, emptying it, taking it down, and looking whether it is gone.
//!
//! Invariant: only a dataset that carries the mark loses tables; one that was there before the drill stays, empty.

use serde_json::{Value, json};
use stages::connect::bigquery::BigQuery;
use stages::{Error, Kind, Result};

/// The table that marks a dataset as the scratch of a drill.
pub(super) const MARK: &str = "rekindle_drill_mark";
/// What the mark says of a dataset that a drill has made.
const MADE: &str = "made by a drill";
/// What it says of one that was there, empty.
const FOUND: &str = "found by a drill";

/// The scratch dataset.
pub(super) struct ScratchDataset {
    pub(super) bigquery: BigQuery,
    pub(super) name: String,
    pub(super) location: String,
    /// Whether a drill has made it, so that it is removed with its tables.
    is_made: bool,
}

fn table_id(resource: &Value) -> Option<&str> {
    resource.pointer("/tableReference/tableId")?.as_str()
}

impl ScratchDataset {
    /// Looks at the dataset; one with tables that no drill left there is refused.
    pub(super) async fn find(bigquery: BigQuery, name: &str, location: &str) -> Result<Self> {
        let mut found =
            Self { bigquery, name: name.to_owned(), location: location.to_owned(), is_made: true };
        let Some(facts) = found.bigquery.dataset(name).await? else { return Ok(found) };
        found.location = facts.location;
        let mark = found.bigquery.table(name, MARK).await?;
        found.is_made =
            mark.as_ref().is_some_and(|mark| mark["description"].as_str() == Some(MADE));
        let tables = found.bigquery.tables(name).await?;
        if mark.is_none() && !tables.is_empty() {
            let named = tables.iter().filter_map(table_id).take(3).collect::<Vec<_>>().join(", ");
            let message = format!(
                "dataset {name} of [drill] holds {} tables ({named}), and no drill left them there",
                tables.len()
            );
            return Err(Error::new(Kind::Config, message)
                .with_hint("name another dataset in [drill], or empty this one yourself"));
        }
        Ok(found)
    }

    /// Makes it where it is not there, marks it, and removes what an earlier drill left in it.
    pub(super) async fn seed(&self) -> Result<()> {
        self.bigquery.ensure_dataset(&self.name, &self.location).await?;
        if self.bigquery.table(&self.name, MARK).await?.is_none() {
            // Somebody may have put tables into it since it was looked at.
            self.refuse_tables().await?;
            let says = if self.is_made { MADE } else { FOUND };
            let fields = json!([{"name": "note", "type": "STRING"}]);
            let resource = json!({"description": says, "schema": {"fields": fields}});
            self.bigquery.insert_table(&self.name, MARK, &resource).await?;
        }
        for table in self.tables().await? {
            self.bigquery.delete_table(&self.name, &table).await?;
        }
        self.refuse_tables().await
    }

    async fn refuse_tables(&self) -> Result<()> {
        let tables = self.tables().await?;
        if tables.is_empty() {
            return Ok(());
        }
        let message =
            format!("dataset {} of [drill] is not empty: {}", self.name, tables.join(", "));
        Err(Error::new(Kind::Config, message)
            .with_hint("see who uses it, or name another dataset in [drill]"))
    }

    /// Tables beside the mark.
    async fn tables(&self) -> Result<Vec<String>> {
        let tables = self.bigquery.tables(&self.name).await?;
        let names = tables.iter().filter_map(table_id).filter(|name| *name != MARK);
        Ok(names.map(str::to_owned).collect())
    }

    /// Removes every table, and the dataset where a drill has made it; says what was looked at afterwards.
    pub(super) async fn tear_down(&self) -> Result<String> {
        let (bigquery, name) = (&self.bigquery, &self.name);
        if bigquery.dataset(name).await?.is_none() {
            return Ok(format!("dataset {name} does not exist"));
        }
        if bigquery.table(name, MARK).await?.is_some() {
            for table in self.tables().await? {
                bigquery.delete_table(name, &table).await?;
            }
            bigquery.delete_table(name, MARK).await?;
        }
        // A dataset that lost its mark to somebody is not ours any more.
        self.refuse_tables().await?;
        if self.is_made {
            bigquery.delete_dataset(name).await?;
        }
        match bigquery.dataset(name).await? {
            None => Ok(format!("dataset {name} does not exist")),
            Some(_) if !self.is_made => {
                Ok(format!("dataset {name}, which was there before, holds no table"))
            }
            Some(_) => {
                let message = format!("dataset {name} is still there although it was removed");
                Err(Error::new(Kind::Internal, message)
                    .with_hint(format!("remove it yourself: bq rm -d {name}")))
            }
        }
    }

    /// Lets all of a restored table be read, where its queries had to name table partitions.
    pub(super) async fn lift_filter(&self, table: &str) -> Result<()> {
        let Some(resource) = self.bigquery.table(&self.name, table).await? else {
            let message = format!("table {}.{table} is gone", self.name);
            return Err(Error::new(Kind::Difference, message)
                .with_hint("see who uses the dataset of [drill], then: rekindle drill again"));
        };
        let is_true = |value: &Value| value.as_bool() == Some(true);
        let needs_filter = is_true(&resource["requirePartitionFilter"])
            || is_true(&resource["timePartitioning"]["requirePartitionFilter"]);
        if needs_filter {
            let change = json!({"requirePartitionFilter": false});
            self.bigquery.patch_table(&self.name, table, &change).await?;
        }
        Ok(())
    }
}
