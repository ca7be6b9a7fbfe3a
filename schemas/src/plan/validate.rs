//! From the raw file to a validated plan.

/// One mistake in a plan file. (stub: the plan work package replaces this file)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {}

/// Every mistake of a plan file. (stub)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanErrors(pub Vec<PlanError>);
