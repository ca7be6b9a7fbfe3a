-- One HSET per row, in the Redis protocol, as one writes it down: the texts in a subquery, their lengths outside.
-- Timestamps are microseconds since 1970, and a null is an empty field. psql's newline completes the last \r\n.
SELECT E'*14\r\n$4\r\nHSET\r\n$' || octet_length(k) || E'\r\n' || k
    || E'\r\n$7\r\nrepo_id\r\n$' || octet_length(repo) || E'\r\n' || repo
    || E'\r\n$6\r\nstatus\r\n$' || octet_length(status) || E'\r\n' || status
    || E'\r\n$10\r\nstarted_at\r\n$' || octet_length(started) || E'\r\n' || started
    || E'\r\n$11\r\nfinished_at\r\n$' || octet_length(finished) || E'\r\n' || finished
    || E'\r\n$12\r\nartifact_sha\r\n$' || octet_length(sha) || E'\r\n' || sha
    || E'\r\n$9\r\nlog_bytes\r\n$' || octet_length(log) || E'\r\n' || log || E'\r'
FROM (
    SELECT 'build:' || id AS k, repo_id::text AS repo, status::text AS status,
        (extract(epoch FROM started_at) * 1000000)::bigint::text AS started,
        coalesce((extract(epoch FROM finished_at) * 1000000)::bigint::text, '') AS finished,
        artifact_sha AS sha, log_bytes::text AS log
    FROM builds
) AS texts;
