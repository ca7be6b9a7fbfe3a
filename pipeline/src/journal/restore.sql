-- What a restore of BigQuery needs beyond runs and routes. Added to any journal of format 1: an earlier binary
-- does not look at these tables.
CREATE TABLE IF NOT EXISTS restore_table (
    run_id   TEXT    NOT NULL REFERENCES run (id),
    route    TEXT    NOT NULL,
    choice   TEXT    NOT NULL,
    stage    TEXT    NOT NULL,
    staging  TEXT    NOT NULL,
    attempt  INTEGER NOT NULL,
    findings TEXT    NOT NULL,
    PRIMARY KEY (run_id, route)
) STRICT;

-- The write stream that holds a table partition now; an abandoned one is replaced, and its name forgotten.
CREATE TABLE IF NOT EXISTS restore_stream (
    run_id          TEXT    NOT NULL,
    route           TEXT    NOT NULL,
    table_partition TEXT    NOT NULL,
    attempt         INTEGER NOT NULL,
    stream          TEXT,
    status          TEXT    NOT NULL,
    acknowledged    INTEGER NOT NULL,
    digest          TEXT,
    PRIMARY KEY (run_id, route, table_partition),
    FOREIGN KEY (run_id, route) REFERENCES restore_table (run_id, route)
) STRICT;

-- A job is written down before BigQuery is asked for it, so that asking again never does it twice.
CREATE TABLE IF NOT EXISTS restore_job (
    run_id  TEXT    NOT NULL,
    route   TEXT    NOT NULL,
    purpose TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    job_id  TEXT    NOT NULL,
    status  TEXT    NOT NULL,
    answer  TEXT,
    PRIMARY KEY (run_id, route, purpose),
    FOREIGN KEY (run_id, route) REFERENCES restore_table (run_id, route)
) STRICT;
