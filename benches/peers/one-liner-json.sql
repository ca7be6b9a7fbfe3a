-- One SET per row, in the Redis protocol: the whole row as PostgreSQL's own JSON.
SELECT E'*3\r\n$3\r\nSET\r\n$' || 6 + octet_length(id) || E'\r\nbuild:' || id
    || E'\r\n$' || octet_length(value) || E'\r\n' || value || E'\r'
FROM (SELECT id::text AS id, row_to_json(builds)::text AS value FROM builds OFFSET 0) AS texts;
