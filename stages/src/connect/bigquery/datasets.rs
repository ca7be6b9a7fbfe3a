//! Datasets: made and removed through `gcp-bigquery-client`, read as raw JSON, which is tried again.
//!
//! Invariant: a dataset that is there is never changed by making it again.

use super::BigQuery;
use super::failure::from_client;
use super::rest::Call;
use crate::error::Result;
use gcp_bigquery_client::model::dataset::Dataset;
use reqwest::Method;
use serde_json::Value;

/// What the product needs to know of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFacts {
    /// Where it is, for example `us-central1`; jobs on it run there.
    pub location: String,
}

fn facts(dataset: Dataset) -> DatasetFacts {
    DatasetFacts { location: dataset.location.unwrap_or_default() }
}

impl BigQuery {
    /// Returns the facts of a dataset, or `None` where there is none.
    pub async fn dataset(&self, dataset: &str) -> Result<Option<DatasetFacts>> {
        let location = |found: &Value| {
            found.get("location").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let found = self.dataset_resource(dataset).await?;
        Ok(found.map(|found| DatasetFacts { location: location(&found) }))
    }

    async fn dataset_resource(&self, dataset: &str) -> Result<Option<Value>> {
        let call = Call {
            method: Method::GET,
            path: format!("datasets/{dataset}"),
            query: &[],
            body: None,
            what: &format!("cannot read dataset {dataset} of bigquery"),
        };
        self.find(call).await
    }

    /// Returns the names of the datasets of the project, all pages.
    pub async fn datasets(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut token = String::new();
        loop {
            let query = [("maxResults", "1000"), ("pageToken", token.as_str())];
            let call = Call {
                method: Method::GET,
                path: "datasets".to_owned(),
                query: if token.is_empty() { &query[..1] } else { &query },
                body: None,
                what: "cannot list the datasets of bigquery",
            };
            let page = self.ask(call).await?;
            let found = page.get("datasets").and_then(Value::as_array);
            let name = |dataset: &Value| {
                dataset.pointer("/datasetReference/datasetId")?.as_str().map(str::to_owned)
            };
            names.extend(found.into_iter().flatten().filter_map(name));
            match page.get("nextPageToken").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => return Ok(names),
            }
        }
    }

    /// Returns where jobs on a dataset run: where the plan says, or where the dataset is.
    pub async fn location_of(&self, dataset: &str) -> Result<Option<String>> {
        if let Some(location) = self.location() {
            return Ok(Some(location.to_owned()));
        }
        Ok(self.dataset(dataset).await?.map(|facts| facts.location))
    }

    /// Returns how many hours back the tables of a dataset can be read, where it says so.
    pub async fn time_travel_hours(&self, dataset: &str) -> Result<Option<i64>> {
        // The typed model does not know this field.
        let found = self.dataset_resource(dataset).await?;
        let hours = found.as_ref().and_then(|dataset| dataset.get("maxTimeTravelHours")?.as_str());
        Ok(hours.and_then(|hours| hours.parse().ok()))
    }

    /// Makes a dataset unless it is there.
    pub async fn ensure_dataset(&self, dataset: &str, location: &str) -> Result<DatasetFacts> {
        if let Some(found) = self.dataset(dataset).await? {
            return Ok(found);
        }
        let wanted = Dataset::new(self.project(), dataset).location(location);
        match self.shared.client.dataset().create(wanted).await {
            Ok(made) => Ok(facts(made)),
            Err(error) => match self.dataset(dataset).await? {
                // Somebody else made it in between.
                Some(found) => Ok(found),
                None => {
                    Err(from_client(error, &format!("cannot make dataset {dataset} of bigquery")))
                }
            },
        }
    }

    /// Removes a dataset and every table in it.
    pub async fn delete_dataset(&self, dataset: &str) -> Result<()> {
        let deleted = self.shared.client.dataset().delete(self.project(), dataset, true).await;
        deleted.map_err(|error| {
            from_client(error, &format!("cannot remove dataset {dataset} of bigquery"))
        })
    }
}
