//! What a cell of the fail-loud matrix is, and the names of the tests and reasons that the cells share.
//!
//! Invariant: a name is the path of a test below `tests/it`.

/// Commands, in the order of the cells.
pub(super) const FLOWS: [&str; 10] = [
    "check",
    "plan",
    "rebuild redis from PostgreSQL",
    "rebuild redis from BigQuery",
    "backup bigquery",
    "restore bigquery",
    "verify redis",
    "verify bigquery",
    "rejects replay",
    "status",
];

/// What is known of a command under a degradation.
#[derive(Debug)]
pub(super) enum Cell {
    /// It ends with a code and says a text, which a test asserts.
    Proven { code: u8, test: &'static str, says: &'static str },
    /// It cannot occur, and why.
    Never(&'static str),
}

pub(super) const fn is(code: u8, test: &'static str, says: &'static str) -> Cell {
    Cell::Proven { code, test, says }
}

pub(super) const A_SOURCE_THAT_IS_AWAY: &str = "fail_loud::alloydb::a_source_that_is_away";
pub(super) const A_BIGQUERY_THAT_IS_AWAY: &str = "fail_loud::bigquery::a_bigquery_that_is_away";
pub(super) const A_DUPLICATE_THAT_IS_AWAY: &str = "fail_loud::bigquery::a_duplicate_that_is_away";
pub(super) const A_REBUILD_THAT_LOSES_AN_END: &str =
    "fail_loud::midway::a_rebuild_that_loses_an_end_or_is_stopped";
pub(super) const A_COMMAND_ON_BIGQUERY_THAT_LOSES: &str =
    "fail_loud::midway::a_command_on_bigquery_that_loses_it";
pub(super) const A_COMMAND_ON_BIGQUERY_THAT_LOSES_FAIL_LOUD: &str =
    "fail_loud::midway::a_command_on_bigquery_that_loses_redis";
pub(super) const A_CHECK_THAT_LOSES_AN_END: &str = "fail_loud::cut_off::a_check_that_loses_an_end";
pub(super) const A_PLAN_THAT_LOSES_AN_END: &str = "fail_loud::cut_off::a_plan_that_loses_an_end";
pub(super) const A_RESTORE_THAT_LOSES_ITS_DUPLICATE: &str =
    "fail_loud::cut_off::a_restore_that_loses_its_duplicate";
pub(super) const A_SYSTEM_THAT_GOES_AWAY_ON: &str =
    "verify_live::a_system_that_goes_away_on_the_way_proves_nothing";
pub(super) const A_SOURCE_THAT_DENIES: &str = "fail_loud::alloydb::a_source_that_denies";
pub(super) const A_BIGQUERY_THAT_DENIES_OR_HAS: &str =
    "fail_loud::bigquery::a_bigquery_that_denies_or_has_no_quota";
pub(super) const A_DUPLICATE_THAT_DENIES: &str = "fail_loud::bigquery::a_duplicate_that_denies";
pub(super) const A_SOURCE_THAT_CHANGED_ITS_SCHEMA: &str =
    "fail_loud::alloydb::a_source_that_changed_its_schema_or_lost_its_rows";
pub(super) const A_DUPLICATE_STAYS_AS_IT_IS: &str =
    "drift_cloud::a_duplicate_stays_as_it_is_where_its_table_was_made_anew_with_other_columns";
pub(super) const A_REBUILD_REFUSES_A_TABLE: &str =
    "drift_cloud::a_rebuild_refuses_a_table_whose_column_holds_something_else";
pub(super) const AN_EARLIER_STATE_AND_A_RE: &str =
    "restore::an_earlier_state_and_a_re_created_table_are_restored_only_as_named";
pub(super) const A_TABLE_THAT_IS_MISSING_OR: &str =
    "verify_bigquery::a_table_that_is_missing_or_was_made_anew_is_compared_as_far_as_it_can_be";
pub(super) const BLOCKS_THAT_ARE_ALTERED_AND_A: &str =
    "fail_loud::bigquery::blocks_that_are_altered_and_a_table_that_was_emptied";
pub(super) const A_DUPLICATE_ON_A_REPLICA: &str = "fail_loud::bigquery::a_duplicate_on_a_replica";
pub(super) const A_NULL_IN_A_KEY_IS: &str =
    "bad_input::a_null_in_a_key_is_a_reject_and_everything_else_is_written";
pub(super) const A_ROW_WITHOUT_A_KEY: &str = "fail_loud::bigquery::a_row_without_a_key";
pub(super) const ROWS_THAT_CANNOT_BE_DECODED_ARE: &str =
    "backup_left::rows_that_cannot_be_decoded_are_asked_for_again_and_never_published";
pub(super) const ROWS_THAT_CANNOT_BE_DECODED_ARE_APP_ROWS: &str =
    "app_rows::rows_that_cannot_be_decoded_are_kept_and_nothing_is_published";
pub(super) const MORE_REJECTS_THAN_THE_PLAN_ALLOWS: &str =
    "fail_loud::alloydb::more_rejects_than_the_plan_allows";
pub(super) const A_TARGET_THAT_IS_AWAY: &str = "fail_loud::alloydb::a_target_that_is_away";
pub(super) const A_TARGET_THAT_DENIES: &str = "fail_loud::alloydb::a_target_that_denies";
pub(super) const A_TARGET_THAT_IS_FULL_OR: &str =
    "fail_loud::alloydb::a_target_that_is_full_or_evicts";
pub(super) const A_DUPLICATE_THAT_IS_FULL_OR: &str =
    "fail_loud::bigquery::a_duplicate_that_is_full_or_evicts";
pub(super) const A_TARGET_THAT_IS_A_REPLICA: &str =
    "fail_loud::alloydb::a_target_that_is_a_replica";
pub(super) const A_TARGET_OF_ANOTHER_RUN: &str = "fail_loud::alloydb::a_target_of_another_run";
pub(super) const A_TARGET_OF_ANOTHER_RUN_OR: &str =
    "fail_loud::bigquery::a_target_of_another_run_or_with_rows";
pub(super) const DAMAGE_AFTER_THE_LOAD_IS_FOUND: &str =
    "streams_faults::damage_after_the_load_is_found_by_the_read_back";
pub(super) const ROWS_THAT_CANNOT_BE_DECODED_ARE_BIGQUERY: &str =
    "bigquery::resumed::rows_that_cannot_be_decoded_are_read_again_and_never_written";
pub(super) const FULL_NAMES_EVERY_PLANTED_DAMAGE_AND: &str =
    "verify::full_names_every_planted_damage_and_writes_nothing";
pub(super) const WHAT_CANNOT_BE_REPLAYED_IS_REFUSED: &str =
    "rejects::what_cannot_be_replayed_is_refused_before_anything_is_written";
pub(super) const A_STATE_FOLDER_THAT_CANNOT_BE: &str =
    "fail_loud::alloydb::a_state_folder_that_cannot_be_used";
pub(super) const A_JOURNAL_THAT_CANNOT_GROW_STOPS: &str =
    "journal_safety::a_journal_that_cannot_grow_stops_the_run_and_the_next_one_goes_on";
pub(super) const A_STATE_FOLDER_IN_USE_OR: &str =
    "fail_loud::bigquery::a_state_folder_in_use_or_of_no_use";
pub(super) const A_STATE_FOLDER_IN_USE: &str = "fail_loud::alloydb::a_state_folder_in_use";
pub(super) const A_COMMAND_ON_BIGQUERY_THAT_IS: &str =
    "fail_loud::midway::a_command_on_bigquery_that_is_stopped";
pub(super) const A_REPLAY_THAT_IS_STOPPED: &str =
    "fail_loud::midway::a_replay_that_is_stopped_or_loses_an_end";
pub(super) const A_VERIFICATION_THAT_IS_STOPPED: &str =
    "fail_loud::midway::a_verification_that_is_stopped_or_loses_its_source";
pub(super) const A_DUPLICATE_OLDER_THAN_THE_OBJECTIVE: &str =
    "backup_age::a_duplicate_older_than_the_objective_is_late";
pub(super) const A_VARIABLE_THAT_IS_MISSING_AND: &str =
    "fail_loud::alloydb::a_variable_that_is_missing_and_an_objective_that_is_missed";
pub(super) const CREDENTIALS_THAT_ARE_MISSING_AND_AN: &str =
    "fail_loud::bigquery::credentials_that_are_missing_and_an_objective_that_is_missed";

pub(super) const ASKS_NOTHING: Cell = Cell::Never("asks no system, only the state folder");
pub(super) const READS_NO_ROWS: Cell = Cell::Never("reads no rows, so it cannot tell");
pub(super) const SAVES_NOTHING: Cell =
    Cell::Never("has nothing to save: the signal ends it at once, as any program");
pub(super) const BRINGS_NOTHING: Cell =
    Cell::Never("brings nothing back, so no objective is its own");
