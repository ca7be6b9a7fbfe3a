-- Format 1 of the journal; what was added to it since is in mod.rs (`sign`). Structured columns hold JSON text; times carry their unit in the name.
CREATE TABLE format (
    only       INTEGER PRIMARY KEY CHECK (only = 1),
    format     INTEGER NOT NULL,
    written_by TEXT    NOT NULL
) STRICT;

CREATE TABLE run (
    id               TEXT    PRIMARY KEY,
    command          TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    plan_fingerprint TEXT    NOT NULL,
    binary_version   TEXT    NOT NULL,
    lost_at_ms       INTEGER NOT NULL,
    lost_at_given    INTEGER NOT NULL,
    started_ms       INTEGER NOT NULL,
    ended_ms         INTEGER,
    attempts         INTEGER NOT NULL,
    target_was_empty INTEGER NOT NULL,
    summary          TEXT
) STRICT;

CREATE TABLE route (
    run_id       TEXT    NOT NULL REFERENCES run (id),
    name         TEXT    NOT NULL,
    definition   TEXT    NOT NULL,
    schema_lines TEXT    NOT NULL,
    relations    TEXT    NOT NULL,
    reconcile    INTEGER NOT NULL,
    caught_up    INTEGER REFERENCES snapshot (id),
    dropped_keys INTEGER NOT NULL,
    completed_ms INTEGER,
    PRIMARY KEY (run_id, name)
) STRICT;

CREATE TABLE server (
    run_id   TEXT NOT NULL REFERENCES run (id),
    role     TEXT NOT NULL,
    identity TEXT NOT NULL,
    PRIMARY KEY (run_id, role)
) STRICT;

-- AUTOINCREMENT: an id is never used twice, so a later snapshot always has the higher one.
CREATE TABLE snapshot (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id   TEXT    NOT NULL REFERENCES run (id),
    xmin     INTEGER NOT NULL,
    xmax     INTEGER NOT NULL,
    taken_us INTEGER NOT NULL,
    lsn      TEXT    NOT NULL,
    identity TEXT    NOT NULL
) STRICT;

CREATE TABLE partition (
    run_id         TEXT    NOT NULL REFERENCES run (id),
    id             TEXT    NOT NULL,
    route          TEXT    NOT NULL,
    ordinal        INTEGER NOT NULL,
    bounds         TEXT    NOT NULL,
    rows_estimate  INTEGER NOT NULL,
    bytes_estimate INTEGER NOT NULL,
    newest_us      INTEGER,
    status         TEXT    NOT NULL,
    epoch          INTEGER NOT NULL,
    position       TEXT    NOT NULL,
    rows           INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    written        INTEGER NOT NULL,
    kept           INTEGER NOT NULL,
    expired        INTEGER NOT NULL,
    rejects        INTEGER NOT NULL,
    digest_sum     BLOB    NOT NULL CHECK (length(digest_sum) = 16),
    digest_count   INTEGER NOT NULL,
    first_snapshot INTEGER REFERENCES snapshot (id),
    last_snapshot  INTEGER REFERENCES snapshot (id),
    attempts       INTEGER NOT NULL,
    error          TEXT,
    busy_ms        INTEGER NOT NULL,
    ledger_bytes   INTEGER NOT NULL,
    PRIMARY KEY (run_id, id),
    FOREIGN KEY (run_id, route) REFERENCES route (run_id, name)
) STRICT;

CREATE INDEX partition_by_route ON partition (run_id, route);
