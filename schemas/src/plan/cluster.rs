//! `backups` of `[alloydb]`: the cluster whose own backups are looked at, and whom to ask about them.
//!
//! Invariant: every part of the name is one that may stand in a path of a URL as it is.

use super::raw::Section;

/// The form of the name, also told by the JSON Schema.
pub(super) const PATTERN: &str =
    "^projects/[A-Za-z0-9.:_-]+/locations/[A-Za-z0-9_-]+/clusters/[A-Za-z0-9_-]+$";

/// A cluster of AlloyDB, as Google's Admin API names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its project.
    pub project: String,
    /// Its location, where its backups are too.
    pub location: String,
    /// Its name there.
    pub name: String,
    /// The Admin API: `https://` of Google (a private one), or `http://` of a stand-in.
    pub endpoint: Option<String>,
}

impl Cluster {
    /// Parses `projects/P/locations/L/clusters/C`.
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let ["projects", project, "locations", location, "clusters", name] = parts[..] else {
            return None;
        };
        let fits = |part: &str, more: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        (fits(project, ".:_-") && fits(location, "_-") && fits(name, "_-")).then(|| Self {
            project: project.to_owned(),
            location: location.to_owned(),
            name: name.to_owned(),
            endpoint: None,
        })
    }

    /// The whole name, as the API writes it.
    pub fn path(&self) -> String {
        format!("projects/{}/{}", self.project, self.path_in_project())
    }

    /// The name without its project, which the API may write as a number.
    pub fn path_in_project(&self) -> String {
        format!("locations/{}/clusters/{}", self.location, self.name)
    }
}

/// Reads `backups` and `backups_endpoint`.
pub(super) fn cluster(section: &Section<'_>) -> Option<Cluster> {
    let endpoint = section.text("backups_endpoint").map(|text| {
        if !text.value.starts_with("http://") && !text.value.starts_with("https://") {
            text.mistake("must start with http:// or https://");
        }
        text.value.trim_end_matches('/').to_owned()
    });
    if section.has("backups_endpoint") && !section.has("backups") {
        section.mistake("backups_endpoint", "needs \"backups\", the cluster to ask about");
    }
    let text = section.text("backups")?;
    let Some(cluster) = Cluster::parse(&text.value) else {
        text.mistake("must be \"projects/PROJECT/locations/LOCATION/clusters/CLUSTER\"");
        return None;
    };
    Some(Cluster { endpoint, ..cluster })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_as_the_api_names_it() {
        let cluster =
            Cluster::parse("projects/code-town/locations/us-central1/clusters/main").unwrap();
        assert_eq!(cluster.path(), "projects/code-town/locations/us-central1/clusters/main");
        assert_eq!(cluster.path_in_project(), "locations/us-central1/clusters/main");
        for bad in [
            "",
            "main",
            "projects/p/locations/l/clusters/",
            "projects/p/locations/l/clusters/c/backups/b",
            "/projects/p/locations/l/clusters/c",
            "projects/p/locations/l/instances/c",
            "projects/p/locations/l/clusters/c?x=1",
            "projects/p/../clusters/c",
        ] {
            assert_eq!(Cluster::parse(bad), None, "{bad}");
        }
    }
}
