//! Tables and their policies as raw JSON: the typed models know fewer fields than a table has.
//!
//! Invariant: a resource is handed on as BigQuery sent it.

use super::BigQuery;
use super::rest::{Answer, Call};
use crate::error::Result;
use reqwest::Method;
use serde_json::{Value, json};

fn path(dataset: &str, table: &str) -> String {
    format!("datasets/{dataset}/tables/{table}")
}

impl BigQuery {
    /// Returns the resource of a table or view, or `None` where there is none (nor perhaps its dataset).
    pub async fn table(&self, dataset: &str, table: &str) -> Result<Option<Value>> {
        self.find(Call {
            method: Method::GET,
            path: path(dataset, table),
            query: &[],
            body: None,
            what: &format!("cannot read table {dataset}.{table} of bigquery"),
        })
        .await
    }

    /// Makes a table from its resource, whose `tableReference` is set here. Fails where it is there already.
    pub async fn insert_table(
        &self,
        dataset: &str,
        table: &str,
        resource: &Value,
    ) -> Result<Value> {
        let mut resource = resource.clone();
        resource["tableReference"] =
            json!({"projectId": self.project(), "datasetId": dataset, "tableId": table});
        let what = format!("cannot make table {dataset}.{table} of bigquery");
        let call = Call {
            method: Method::POST,
            path: format!("datasets/{dataset}/tables"),
            query: &[],
            body: Some(&resource),
            what: &what,
        };
        match self.try_ask(call).await? {
            Answer::Body(made) => Ok(made),
            // The answer to an earlier try was lost: the table that is there is most likely the one just made.
            Answer::Refused { refusal, tries } if refusal.is_duplicate() && tries > 1 => {
                match self.table(dataset, table).await? {
                    Some(made) => Ok(made),
                    None => Err(refusal.into_error(&what)),
                }
            }
            Answer::Refused { refusal, .. } => Err(refusal.into_error(&what)),
        }
    }

    /// Changes the fields of a table that `change` names, and no others.
    pub async fn patch_table(&self, dataset: &str, table: &str, change: &Value) -> Result<Value> {
        self.ask(Call {
            method: Method::PATCH,
            path: path(dataset, table),
            query: &[],
            body: Some(change),
            what: &format!("cannot change table {dataset}.{table} of bigquery"),
        })
        .await
    }

    /// Removes a table; whether it was there.
    pub async fn delete_table(&self, dataset: &str, table: &str) -> Result<bool> {
        let call = Call {
            method: Method::DELETE,
            path: path(dataset, table),
            query: &[],
            body: None,
            what: &format!("cannot remove table {dataset}.{table} of bigquery"),
        };
        Ok(self.find(call).await?.is_some())
    }

    /// Returns who may do what with a table.
    pub async fn table_iam_policy(&self, dataset: &str, table: &str) -> Result<Value> {
        self.ask(Call {
            method: Method::POST,
            path: format!("{}:getIamPolicy", path(dataset, table)),
            query: &[],
            body: Some(&json!({})),
            what: &format!("cannot read the policy of table {dataset}.{table} of bigquery"),
        })
        .await
    }

    /// Replaces who may do what with a table.
    pub async fn set_table_iam_policy(
        &self,
        dataset: &str,
        table: &str,
        policy: &Value,
    ) -> Result<Value> {
        self.ask(Call {
            method: Method::POST,
            path: format!("{}:setIamPolicy", path(dataset, table)),
            query: &[],
            body: Some(&json!({"policy": policy})),
            what: &format!("cannot set the policy of table {dataset}.{table} of bigquery"),
        })
        .await
    }

    /// Returns the row access policies of a table, all pages.
    pub async fn row_access_policies(&self, dataset: &str, table: &str) -> Result<Vec<Value>> {
        let what = format!("cannot read the row access policies of table {dataset}.{table}");
        let mut policies = Vec::new();
        let mut token = String::new();
        loop {
            let query = [("pageToken", token.as_str())];
            let call = Call {
                method: Method::GET,
                path: format!("{}/rowAccessPolicies", path(dataset, table)),
                query: if token.is_empty() { &[] } else { &query },
                body: None,
                what: &what,
            };
            let mut page = self.ask(call).await?;
            if let Some(Value::Array(found)) = page.get_mut("rowAccessPolicies").map(Value::take) {
                policies.extend(found);
            }
            match page.get("nextPageToken").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => return Ok(policies),
            }
        }
    }

    /// Returns the resources of the tables of a dataset, as the list shows them.
    pub async fn tables(&self, dataset: &str) -> Result<Vec<Value>> {
        let what = format!("cannot list the tables of dataset {dataset} of bigquery");
        let mut tables = Vec::new();
        let mut token = String::new();
        loop {
            let query = [("maxResults", "1000"), ("pageToken", token.as_str())];
            let call = Call {
                method: Method::GET,
                path: format!("datasets/{dataset}/tables"),
                query: if token.is_empty() { &query[..1] } else { &query },
                body: None,
                what: &what,
            };
            let mut page = self.ask(call).await?;
            if let Some(Value::Array(found)) = page.get_mut("tables").map(Value::take) {
                tables.extend(found);
            }
            match page.get("nextPageToken").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => return Ok(tables),
            }
        }
    }
}
