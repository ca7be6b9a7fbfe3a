//! Loading the plan file: every mistake on its own line, with its place.
//!
//! Invariant: a substituted secret never appears in a message.

use super::failure::Failure;
use crate::outcome::Exit;
use schemas::Plan;
use std::fs;
use std::path::Path;

/// Reads and checks the plan, and that it has the routes asked for.
pub(crate) fn load(path: &Path, routes: &[String]) -> Result<Plan, Vec<Failure>> {
    let text = fs::read_to_string(path).map_err(|error| {
        let error = stages::Error::new(
            stages::Kind::Config,
            format!("cannot read the plan {}", path.display()),
        )
        .with_source(error)
        .with_hint("name the plan file: rekindle plan --plan FILE");
        vec![Failure::of_stage(Exit::Usage, &error)]
    })?;
    let plan =
        Plan::parse(&text, &|name| std::env::var(name).ok(), &|file| fs::read_to_string(file));
    let plan = plan.map_err(|mistakes| {
        let told = mistakes.0.iter().map(|mistake| {
            Failure::new(Exit::Usage, format!("{} {mistake}", path.display()), None)
        });
        told.collect::<Vec<_>>()
    })?;
    let unknown: Vec<Failure> = routes
        .iter()
        .filter(|name| !plan.routes.iter().any(|route| route.name == **name))
        .map(|name| unknown_route(name, &plan, path))
        .collect();
    if unknown.is_empty() { Ok(plan) } else { Err(unknown) }
}

fn unknown_route(name: &str, plan: &Plan, path: &Path) -> Failure {
    let known: Vec<&str> = plan.routes.iter().map(|route| route.name.as_str()).collect();
    Failure::new(
        Exit::Usage,
        format!("{} has no route \"{name}\"", path.display()),
        Some(&format!("it has: {}", known.join(", "))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, routes: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rekindle.toml");
        fs::write(&path, text).unwrap();
        let routes: Vec<String> = routes.iter().map(ToString::to_string).collect();
        let failures = load(&path, &routes).unwrap_err();
        let text: String = failures.iter().map(Failure::render).collect();
        text.replace(&folder.path().display().to_string(), "")
    }

    #[test]
    fn every_mistake_has_its_line() {
        let text =
            told("[alloydb]\nurl = \"postgres://u:secret@h/d\"\nurk = 1\n[redis]\nurl = 5\n", &[]);
        assert!(
            text.lines().filter(|line| line.starts_with("error: /rekindle.toml line ")).count()
                >= 2,
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn a_route_that_is_not_in_the_plan_is_refused() {
        let text = "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n\
                    [[route]]\nname = \"builds\"\ntable = \"alloydb:builds\"\nkey = \"b:{id}\"\ntype = \"hash\"\n";
        assert_eq!(
            told(text, &["builds", "logs"]),
            "error: /rekindle.toml has no route \"logs\"\nhint: it has: builds\n"
        );
    }

    #[test]
    fn a_missing_file_says_what_to_type() {
        let failure = load(Path::new("/nowhere/rekindle.toml"), &[]).unwrap_err();
        assert!(
            failure[0].render().ends_with("hint: name the plan file: rekindle plan --plan FILE\n")
        );
    }
}
