//! A route with half of its fields, which tells time per row and time per byte apart.
//!
//! Invariant: what a narrow route keeps is enough for its plan to hold: a field at least, and the column that tells versions.

use super::report::{RouteModel, Sample};
use crate::model::Observation;
use crate::plan::{FittedTo, PlanReport, Predicted, RouteReport, WHOLE};
use schemas::plan::{FieldSpec, Layout};
use schemas::{Plan, Route};

/// What samples of narrow routes are called.
pub(super) const NARROW: &str = "half of its fields";

/// The fields of a route with every second one left out; `None` where none can be.
pub(super) fn narrow(route: &Route, report: &RouteReport) -> Option<Vec<FieldSpec>> {
    let has_fields = matches!(route.layout, Layout::Hash | Layout::Json | Layout::RedisJson);
    if !has_fields || route.many.is_some() {
        return None;
    }
    let all = route.columns.clone().unwrap_or_else(|| {
        let in_key = route.key.lossless_columns();
        let carried = report.column_names.iter().filter(|name| !in_key.contains(&name.as_str()));
        let field = |name: &String| FieldSpec::Column { field: name.clone(), column: name.clone() };
        carried.map(field).collect()
    });
    let count = all.len();
    let fields: Vec<FieldSpec> = all
        .into_iter()
        .enumerate()
        .filter(|(place, field)| place % 2 == 0 || tells_version(route, field))
        .map(|(_, field)| field)
        .collect();
    (fields.len() < count).then_some(fields)
}

fn tells_version(route: &Route, field: &FieldSpec) -> bool {
    match field {
        FieldSpec::Column { column, .. } => route.version_by.as_ref() == Some(column),
        FieldSpec::Path { .. } | FieldSpec::Constant { .. } => false,
    }
}

/// The plan with these fields for the route of this name.
pub(super) fn with_fields(plan: &Plan, name: &str, fields: &[FieldSpec]) -> Plan {
    let mut plan = plan.clone();
    for route in plan.routes.iter_mut().filter(|route| route.name == name) {
        route.columns = Some(fields.to_vec());
    }
    plan
}

/// Fits each route alone, for rows of all its fields; narrow runs tell what of that is time per byte. Without any, a plan of
/// one route says nothing here that it does not say of everything.
pub(super) fn models(
    samples: &[Sample],
    planned: &PlanReport,
    fitted_to: FittedTo,
    rto_seconds: u64,
) -> Vec<RouteModel> {
    let of = |name: &str, kinds: &[&str]| -> Vec<Observation> {
        let is_of =
            |sample: &&Sample| kinds.contains(&sample.kind.as_str()) && sample.routes == [name];
        samples.iter().filter(is_of).map(Sample::observation).collect()
    };
    let model = |route: &RouteReport| {
        let mut runs = of(&route.name, &["route", WHOLE]);
        let narrow = of(&route.name, &[NARROW]);
        if planned.routes.len() == 1 && narrow.is_empty() {
            return None;
        }
        let sum = |of: fn(&Observation) -> f64| runs.iter().map(of).sum::<f64>();
        let bytes_per_row = sum(|run| run.bytes) / sum(|run| run.rows).max(1.0);
        runs.extend(narrow);
        let rows = route.rows_estimate?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
        let bytes = (rows as f64 * bytes_per_row) as u64;
        let predicted = Predicted::of_size(&runs, fitted_to, (rows, Some(bytes)), rto_seconds)?;
        Some(RouteModel { name: route.name.clone(), rows, predicted })
    };
    planned.routes.iter().filter_map(model).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    fn route(more: &str) -> Route {
        let text = format!(
            "[alloydb]\nurl = \"postgres://a/b\"\n[redis]\nurl = \"redis://127.0.0.1:1\"\n\
             [[route]]\nname = \"items\"\ntable = \"alloydb:items\"\n{more}"
        );
        plan(&text).routes.remove(0)
    }

    fn plan(text: &str) -> Plan {
        let no_file = |_: &str| Err(Error::from(ErrorKind::NotFound));
        Plan::parse(text, &|_| None, &no_file).unwrap()
    }

    fn fields(route: &Route, columns: &[&str]) -> Option<Vec<String>> {
        let report = RouteReport {
            column_names: columns.iter().map(ToString::to_string).collect(),
            ..RouteReport::default()
        };
        let name = |field: &FieldSpec| match field {
            FieldSpec::Column { field, .. }
            | FieldSpec::Path { field, .. }
            | FieldSpec::Constant { field, .. } => field.clone(),
        };
        narrow(route, &report).map(|fields| fields.iter().map(name).collect())
    }

    #[test]
    fn every_second_field_is_left_out_but_the_one_that_tells_versions() {
        let all = route("key = \"item:{id}\"\ntype = \"hash\"\n");
        let found = fields(&all, &["id", "a", "b", "c"]).unwrap();
        assert_eq!(found, ["a", "c"]);
        let newest = route(
            "key = \"item:{id}\"\ntype = \"json\"\ncolumns = [\"a\", \"v\", \"b\", \"c\"]\n\
             on_conflict = \"newest\"\nversion_by = \"v\"\n",
        );
        assert_eq!(fields(&newest, &[]).unwrap(), ["a", "v", "b"]);
    }

    #[test]
    fn what_has_one_field_or_none_has_no_half() {
        let one = route("key = \"item:{id}\"\ntype = \"hash\"\ncolumns = [\"a\"]\n");
        assert_eq!(fields(&one, &["id", "a", "b"]), None);
        let text = route("key = \"item:{id}\"\ntype = \"string\"\ncolumns = [\"a\"]\n");
        assert_eq!(fields(&text, &["id", "a"]), None);
        let set = route("key = \"items:{b}\"\ntype = \"set\"\nmember = \"{id}\"\n");
        assert_eq!(fields(&set, &["id", "a", "b"]), None);
    }

    #[test]
    fn only_the_route_that_is_named_becomes_narrow() {
        let text = "[alloydb]\nurl = \"postgres://a/b\"\n[redis]\nurl = \"redis://127.0.0.1:1\"\n\
            [[route]]\nname = \"x\"\ntable = \"alloydb:items\"\nkey = \"x:{id}\"\ntype = \"hash\"\n\
            [[route]]\nname = \"y\"\ntable = \"alloydb:items\"\nkey = \"y:{id}\"\ntype = \"hash\"\n";
        let plan = plan(text);
        let field = FieldSpec::Column { field: "a".into(), column: "a".into() };
        let made = with_fields(&plan, "y", std::slice::from_ref(&field));
        assert_eq!((&made.routes[0].columns, &made.routes[1].columns), (&None, &Some(vec![field])));
    }
}
