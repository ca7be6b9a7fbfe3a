"""The peer script: psycopg reads through a server-side cursor, redis-py writes.

usage: python_loader.py hash|json|json-mset|hash-plain|json-plain      with ALLOYDB_URL and REDIS_URL in the environment

The plain ones are what one writes in an hour: rows as dicts, hset(mapping=), json.dumps. The others are written to be
fast: the binary build of psycopg, hiredis, plain tuples, every column cast to text in SQL so that no
Python object is made from it only to be printed again, row_to_json in SQL, and execute_command instead of
hset(mapping=), which builds and flattens a dict per row. Of 2,000 to 20,000 rows per fetch and 500 to 5,000 commands
per pipeline, none was measurably better than these.
"""

import json
import os
import sys

import psycopg
import psycopg.rows
import redis

ROWS_PER_FETCH = 10_000
COMMANDS_PER_PIPELINE = 1_000

HASH_SQL = """
    SELECT 'build:' || id, repo_id::text, status::text, started_at::text, finished_at::text, artifact_sha,
        log_bytes::text
    FROM builds
"""
JSON_SQL = "SELECT 'build:' || id, row_to_json(builds)::text FROM builds"


def load_hash(cursor, server):
    cursor.execute(HASH_SQL)
    pipeline = server.pipeline(transaction=False)
    add = pipeline.execute_command
    for key, repo, status, started, finished, sha, log in cursor:
        if finished is None:
            add("HSET", key, "repo_id", repo, "status", status, "started_at", started,
                "artifact_sha", sha, "log_bytes", log)
        else:
            add("HSET", key, "repo_id", repo, "status", status, "started_at", started,
                "finished_at", finished, "artifact_sha", sha, "log_bytes", log)
        if len(pipeline) >= COMMANDS_PER_PIPELINE:
            pipeline.execute()
    pipeline.execute()


def load_json(cursor, server):
    cursor.execute(JSON_SQL)
    pipeline = server.pipeline(transaction=False)
    add = pipeline.execute_command
    for key, value in cursor:
        add("SET", key, value)
        if len(pipeline) >= COMMANDS_PER_PIPELINE:
            pipeline.execute()
    pipeline.execute()


def load_json_mset(cursor, server):
    cursor.execute(JSON_SQL)
    while rows := cursor.fetchmany(COMMANDS_PER_PIPELINE):
        server.mset(dict(rows))


def load_plain(cursor, server, add, columns="*"):
    """Reads rows as dicts and has `add` put each into a pipeline."""
    cursor.row_factory = psycopg.rows.dict_row
    cursor.execute(f"SELECT {columns} FROM builds")
    pipeline = server.pipeline(transaction=False)
    for row in cursor:
        add(pipeline, row)
        if len(pipeline) >= COMMANDS_PER_PIPELINE:
            pipeline.execute()
    pipeline.execute()


def load_hash_plain(cursor, server):
    def add(pipeline, row):
        key = f"build:{row.pop('id')}"
        pipeline.hset(key, mapping={name: str(value) for name, value in row.items() if value is not None})

    load_plain(cursor, server, add, "id, repo_id, status, started_at, finished_at, artifact_sha, log_bytes")


def load_json_plain(cursor, server):
    def add(pipeline, row):
        pipeline.set(f"build:{row['id']}", json.dumps(row, default=str))

    load_plain(cursor, server, add)


LOADERS = {
    "hash": load_hash,
    "json": load_json,
    "json-mset": load_json_mset,
    "hash-plain": load_hash_plain,
    "json-plain": load_json_plain,
}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in LOADERS:
        sys.exit("usage: python_loader.py " + "|".join(LOADERS))
    server = redis.Redis.from_url(os.environ["REDIS_URL"])
    with psycopg.connect(os.environ["ALLOYDB_URL"]) as connection, connection.cursor("builds") as cursor:
        cursor.itersize = ROWS_PER_FETCH
        LOADERS[sys.argv[1]](cursor, server)


if __name__ == "__main__":
    main()
