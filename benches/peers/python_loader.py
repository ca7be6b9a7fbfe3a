"""The peer scripts: psycopg reads through a server-side cursor, redis-py writes; or connectorx reads into arrow.

usage: python_loader.py hash|hash-plain|json|json-plain|json-mset|connectorx|connectorx-all TABLE.json
       with ALLOYDB_URL and REDIS_URL in the environment; TABLE.json is what tables.py says of the table

The plain ones are what one writes in an hour: rows as dicts, hset(mapping=), json.dumps. The others are written to be
fast: the binary build of psycopg, hiredis, plain tuples, every column cast to text in SQL so that no Python object is
made from it only to be printed again, row_to_json in SQL, and execute_command with a list that is filled by one slice
instead of hset(mapping=), which builds and flattens a dict per row. Of 2,000 to 20,000 rows per fetch and 500 to 5,000
commands per pipeline, none was measurably better than these.

connectorx prints one JSON object: rows, seconds without imports, peak memory.
"""

import json
import os
import pathlib
import sys
import time

ROWS_PER_FETCH = 10_000
COMMANDS_PER_PIPELINE = 1_000
PARTITIONS = 2


def load(cursor, server, sql, add):
    """Has `add` put each row into a pipeline."""
    cursor.execute(sql)
    pipeline = server.pipeline(transaction=False)
    for row in cursor:
        add(pipeline, row)
        if len(pipeline) >= COMMANDS_PER_PIPELINE:
            pipeline.execute()
    pipeline.execute()


def load_hash(cursor, server, table):
    words = ["HSET", None]
    for name in table["fields"]:
        words += [name, None]

    def add(pipeline, row):
        # Key and values stand at every other place.
        words[1::2] = row
        if None in row:
            pairs = zip(words[2::2], words[3::2])
            pipeline.execute_command(*words[:2], *[word for pair in pairs if pair[1] is not None for word in pair])
        else:
            pipeline.execute_command(*words)

    load(cursor, server, table["hash_sql"], add)


def load_json(cursor, server, table):
    load(cursor, server, table["json_sql"], lambda pipeline, row: pipeline.execute_command("SET", *row))


def load_json_mset(cursor, server, table):
    cursor.execute(table["json_sql"])
    while rows := cursor.fetchmany(COMMANDS_PER_PIPELINE):
        server.mset(dict(rows))


def load_hash_plain(cursor, server, table):
    def add(pipeline, row):
        key = f"{table['prefix']}{row.pop(table['key'])}"
        mapping = {
            name: json.dumps(value) if isinstance(value, (dict, list)) else str(value)
            for name, value in row.items()
            if value is not None
        }
        pipeline.hset(key, mapping=mapping)

    cursor.row_factory = as_dict()
    load(cursor, server, f"SELECT {', '.join([table['key'], *table['fields']])} FROM {table['relation']}", add)


def load_json_plain(cursor, server, table):
    def add(pipeline, row):
        pipeline.set(f"{table['prefix']}{row[table['key']]}", json.dumps(row, default=str))

    cursor.row_factory = as_dict()
    load(cursor, server, f"SELECT * FROM {table['relation']}", add)


def as_dict():
    import psycopg.rows

    return psycopg.rows.dict_row


LOADERS = {
    "hash": load_hash,
    "json": load_json,
    "json-mset": load_json_mset,
    "hash-plain": load_hash_plain,
    "json-plain": load_json_plain,
}


def extract(table, names):
    import connectorx
    import pyarrow  # noqa: F401

    query = f"SELECT {', '.join(names)} FROM {table['relation']}"
    started = time.monotonic()
    found = connectorx.read_sql(
        os.environ["ALLOYDB_URL"], query, return_type="arrow", partition_on=table["key"], partition_num=PARTITIONS
    )
    seconds = time.monotonic() - started
    status = pathlib.Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"rows": found.num_rows, "seconds": seconds, "peak_rss_bytes": int(peak) * 1024}))


def main():
    modes = [*LOADERS, "connectorx", "connectorx-all"]
    if len(sys.argv) != 3 or sys.argv[1] not in modes:
        sys.exit(f"usage: python_loader.py {'|'.join(modes)} TABLE.json")
    mode, table = sys.argv[1], json.loads(pathlib.Path(sys.argv[2]).read_text())
    if mode.startswith("connectorx"):
        extract(table, table["columns" if mode == "connectorx-all" else "columns_without_json"])
        return
    import psycopg
    import redis

    server = redis.Redis.from_url(os.environ["REDIS_URL"])
    with psycopg.connect(os.environ["ALLOYDB_URL"]) as connection, connection.cursor("rows") as cursor:
        cursor.itersize = ROWS_PER_FETCH
        LOADERS[mode](cursor, server, table)


if __name__ == "__main__":
    main()
