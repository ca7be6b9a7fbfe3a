-- One SET per row, in the Redis protocol, as one writes it down: the whole row as PostgreSQL's own JSON.
SELECT E'*3\r\n$3\r\nSET\r\n$' || octet_length(k) || E'\r\n' || k
    || E'\r\n$' || octet_length(j) || E'\r\n' || j || E'\r'
FROM (SELECT 'build:' || id AS k, row_to_json(builds)::text AS j FROM builds) AS texts;
