//! The systems that the routes of a run read from.
//!
//! Invariant: only a system that a route reads is connected to.

use super::archived::Tables;
use super::{ArchivedShape, CONNECT_TIMEOUT};
use crate::archived::ArchivedSource;
use crate::ordered::Ordered;
use schemas::plan::System;
use schemas::{BoundRoute, Plan, Route};
use stages::connect::{bigquery, postgres};
use stages::extract::bigquery::{BigQueryServer, BigQuerySource, Shape as BigQueryShape};
use stages::extract::postgres::{
    PostgresGauge, PostgresServer, PostgresSource, Shape as PostgresShape,
};
use stages::extract::{Gauge, Snapshot, Source};
use stages::{Error, Kind, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// The source systems of a run, connected.
#[derive(Clone, Default)]
pub struct Sources {
    postgres: Option<Arc<PostgresServer>>,
    bigquery: Option<Arc<BigQueryServer>>,
    /// What is read in place of BigQuery.
    archive: Option<Arc<Tables>>,
    /// Where rows are sorted that come in no order; the folder for temporary files where nobody says.
    sorted: Option<PathBuf>,
    /// Whether the target takes each row once.
    is_once: bool,
}

/// Connects to every system that one of the routes reads.
pub async fn connect_sources(plan: &Plan, routes: &[Route], lanes: usize) -> Result<Sources> {
    let reads = |system| routes.iter().any(|route| route.origin.system() == system);
    let mut sources = Sources::default();
    if reads(System::AlloyDb) {
        sources.postgres = Some(connect_postgres(plan, lanes).await?);
    }
    if reads(System::BigQuery) {
        sources.bigquery = Some(connect_bigquery(plan).await?);
    }
    Ok(sources)
}

/// Connects to PostgreSQL: one connection per lane, one that holds the snapshot, two for control.
pub async fn connect_postgres(plan: &Plan, lanes: usize) -> Result<Arc<PostgresServer>> {
    let Some(section) = &plan.alloydb else {
        return Err(Error::new(Kind::Config, "the plan has no [alloydb] section"));
    };
    let connections = u32::try_from(lanes + 3).unwrap_or(u32::MAX);
    let server = postgres::connect(&section.url.0, connections, CONNECT_TIMEOUT).await?;
    Ok(Arc::new(PostgresServer::new(server, section.snapshot_max)))
}

/// Connects to BigQuery and pins the time that everything is read at.
pub async fn connect_bigquery(plan: &Plan) -> Result<Arc<BigQueryServer>> {
    let Some(section) = &plan.bigquery else {
        return Err(Error::new(Kind::Config, "the plan has no [bigquery] section"));
    };
    let bigquery = bigquery::connect(section, CONNECT_TIMEOUT).await?;
    let server = BigQueryServer::begin(bigquery, section.staging_dataset.clone()).await?;
    Ok(Arc::new(server))
}

impl Sources {
    /// Takes a connected PostgreSQL alone.
    pub(super) fn of_postgres(server: Arc<PostgresServer>) -> Self {
        Self { postgres: Some(server), ..Self::default() }
    }

    /// Returns each system's word and address.
    pub fn addresses(&self) -> Vec<(&'static str, String)> {
        let postgres = self
            .postgres
            .iter()
            .map(|server| (System::AlloyDb.word(), server.address().to_owned()));
        let bigquery =
            self.bigquery.iter().map(|server| (System::BigQuery.word(), server.address()));
        let archive = self.archive.iter().map(|tables| ("archive", tables.values.address()));
        postgres.chain(bigquery).chain(archive).collect()
    }

    /// Returns what looks at the load of a source that applications use too.
    pub fn gauge(&self) -> Option<Arc<dyn Gauge>> {
        let server = self.postgres.as_ref()?;
        Some(Arc::new(PostgresGauge::new(Arc::clone(server))))
    }

    /// Reads tables of BigQuery from an archive.
    pub(super) fn read_archive(&mut self, tables: Arc<Tables>) {
        self.archive = Some(tables);
    }

    /// Sorts rows that come in no order in this folder.
    pub fn sort_in(&mut self, folder: PathBuf) {
        self.sorted = Some(folder);
    }

    /// Reads for a target that takes each row once, and nothing back.
    pub fn read_each_row_once(&mut self) {
        self.is_once = true;
    }

    /// Lets go of what a snapshot holds on a source.
    pub async fn release_snapshot(&self) {
        if let Some(server) = &self.postgres {
            server.release_snapshot().await;
        }
    }

    /// Reads at the pinned snapshot that the run has used before, where that is still there.
    pub fn resume_at(&self, used: &[Snapshot]) {
        let Some(server) = &self.bigquery else { return };
        let identity = server.snapshot().identity;
        let last = used.iter().rev().find(|snapshot| snapshot.identity == identity);
        if let Some(snapshot) = last
            && !server.resume_at(snapshot)
        {
            tracing::warn!(
                "bigquery no longer has the state that the run began to read, or a table is younger: its routes start over"
            );
        }
    }

    pub(super) fn postgres(&self) -> Result<&Arc<PostgresServer>> {
        self.postgres.as_ref().ok_or_else(|| unconnected(System::AlloyDb))
    }

    pub(super) fn bigquery(&self) -> Result<&Arc<BigQueryServer>> {
        self.bigquery.as_ref().ok_or_else(|| unconnected(System::BigQuery))
    }

    pub(super) fn archive(&self) -> Option<&Arc<Tables>> {
        self.archive.as_ref()
    }

    pub(super) fn postgres_source(
        &self,
        bound: Arc<BoundRoute>,
        shape: PostgresShape,
    ) -> Result<Arc<dyn Source>> {
        let source = PostgresSource::new(Arc::clone(self.postgres()?), bound, shape);
        Ok(Arc::new(if self.is_once { source.for_each_row_once() } else { source }))
    }

    pub(super) fn bigquery_source(
        &self,
        bound: Arc<BoundRoute>,
        shape: BigQueryShape,
    ) -> Result<Arc<dyn Source>> {
        let server = Arc::clone(self.bigquery()?);
        let source = Arc::new(BigQuerySource::new(server, Arc::clone(&bound), shape));
        Ok(self.ordered(source, bound))
    }

    pub(super) fn archived_source(
        &self,
        bound: Arc<BoundRoute>,
        shape: ArchivedShape,
    ) -> Result<Arc<dyn Source>> {
        let Some(tables) = &self.archive else {
            return Err(Error::new(Kind::Internal, "the archive is not connected"));
        };
        let values = Arc::clone(&tables.values);
        let source = Arc::new(ArchivedSource::new(values, shape.copy, Arc::clone(&bound)));
        Ok(self.ordered(source, bound))
    }

    /// Sorts the rows of a source that gives no order, where many of them make one key.
    fn ordered(&self, source: Arc<dyn Source>, bound: Arc<BoundRoute>) -> Arc<dyn Source> {
        if !bound.is_many() {
            return source;
        }
        let folder = self.sorted.clone().unwrap_or_else(std::env::temp_dir);
        Arc::new(Ordered::new(source, bound, folder))
    }
}

/// Whoever describes a route has connected to its system.
fn unconnected(system: System) -> Error {
    Error::new(Kind::Internal, format!("{} is not connected", system.word()))
}
