"""The peer scripts for BigQuery: Google's clients on one side, redis-py on the other.

usage: bigquery_loader.py MODE --rest URL --grpc URL --table DATASET.TABLE [--key COLUMN] [--prefix TEXT]
with REDIS_URL in the environment

| mode | what it does |
|---|---|
| rows-to-hashes | rows as dicts through tabledata.list, one hash per row, pipelines of 1,000 |
| hashes-to-rows | SCAN and HGETALL, rows as dicts, load jobs of newline-delimited JSON |
| arrow-to-blocks | to_arrow_iterable through the Storage Read API, arrow IPC with zstd, 20,000 rows per value |
| blocks-to-arrow | those values back, arrow rows into one PENDING stream of the Storage Write API |
| count-blocks | prints how many rows those values hold; no peer, but proof that one did its work |
| rows-to-streams | one stream entry per row, one stream per day; no peer either, but a layout to weigh |

The row-wise modes are what one writes in an hour; the arrow-wise modes are the fastest that Google's clients allow.
"""

import argparse
import base64
import concurrent.futures
import datetime
import decimal
import io
import itertools
import json
import os
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "bigquery-clients"))
import pyarrow as pa  # noqa: E402
import redis  # noqa: E402
from google.cloud import bigquery  # noqa: E402
from google.cloud.bigquery_storage_v1 import types  # noqa: E402
from suite import PROJECT, arrow_request, read_client, rest_client, write_client  # noqa: E402

COMMANDS_PER_PIPELINE = 1_000
ROWS_PER_BLOCK = 20_000
ROWS_PER_LOAD = 50_000
# Well below the 10 MB that one AppendRows request may have.
REQUEST_BYTES = 6_000_000


def text(value):
    """Writes a value as the JSON of a load job has it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value


def fields(values):
    """Makes the fields of a hash or stream entry from a row's columns; a null is left out."""
    return {
        name: json.dumps(value, default=text) if isinstance(value, (list, dict)) else str(text(value))
        for name, value in values.items()
        if value is not None
    }


def rows_to_hashes(options, server):
    rows = rest_client(options.rest).list_rows(f"{PROJECT}.{options.table}", page_size=20_000)
    pipeline = server.pipeline(transaction=False)
    for number, row in enumerate(rows):
        values = dict(row)
        key = values.pop(options.key) if options.key else number
        pipeline.hset(f"{options.prefix}{key}", mapping=fields(values))
        if len(pipeline) >= COMMANDS_PER_PIPELINE:
            pipeline.execute()
    pipeline.execute()


def rows_to_streams(options, server):
    pipeline = server.pipeline(transaction=False)
    for row in rest_client(options.rest).list_rows(f"{PROJECT}.{options.table}", page_size=20_000):
        day = row["ts"].date() if row["ts"] else "none"
        pipeline.xadd(f"{options.prefix}{day}", fields(dict(row)))
        if len(pipeline) >= COMMANDS_PER_PIPELINE:
            pipeline.execute()
    pipeline.execute()


def hashes_to_rows(options, server):
    client = rest_client(options.rest)
    table = client.get_table(f"{PROJECT}.{options.table}")
    nested = {field.name for field in table.schema if field.mode == "REPEATED" or field.field_type == "RECORD"}

    def rows():
        keys = server.scan_iter(f"{options.prefix}*", count=COMMANDS_PER_PIPELINE)
        while chunk := list(itertools.islice(keys, COMMANDS_PER_PIPELINE)):
            pipeline = server.pipeline(transaction=False)
            for key in chunk:
                pipeline.hgetall(key)
            for key, mapping in zip(chunk, pipeline.execute(), strict=True):
                row = {name.decode(): value.decode() for name, value in mapping.items()}
                row.update({name: json.loads(row[name]) for name in nested & row.keys()})
                if options.key:
                    row[options.key] = key.decode().removeprefix(options.prefix)
                yield row

    loaded = rows()
    while chunk := list(itertools.islice(loaded, ROWS_PER_LOAD)):
        body = "\n".join(json.dumps(row, ensure_ascii=False) for row in chunk).encode()
        config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", schema=table.schema)
        client.load_table_from_file(io.BytesIO(body), table, rewind=True, job_config=config).result()


def arrow_to_blocks(options, server):
    rows = rest_client(options.rest).list_rows(f"{PROJECT}.{options.table}")
    batches = rows.to_arrow_iterable(bqstorage_client=read_client(options.grpc))
    settings = pa.ipc.IpcWriteOptions(compression="zstd")

    def write(number, block):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, block.schema, options=settings) as writer:
            writer.write_table(block)
        server.set(f"block:{options.table}:{number}", sink.getvalue())

    waiting, written = [], []
    with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        for batch in batches:
            waiting.append(batch)
            if sum(part.num_rows for part in waiting) >= ROWS_PER_BLOCK:
                written.append(pool.submit(write, len(written), pa.Table.from_batches(waiting)))
                waiting = []
                # Few blocks wait at a time, so that memory does not grow with the table.
                if len(written) > 2 * options.threads:
                    written[-2 * options.threads].result()
        if waiting:
            written.append(pool.submit(write, len(written), pa.Table.from_batches(waiting)))
        for done in written:
            done.result()
    server.set(f"blocks:{options.table}", len(written))


def count_blocks(options, server):
    rows = 0
    for number in range(int(server.get(f"blocks:{options.table}"))):
        rows += pa.ipc.open_stream(server.get(f"block:{options.table}:{number}")).read_all().num_rows
    print(rows)


def blocks_to_arrow(options, server):
    client = write_client(options.grpc)
    dataset, table = options.table.split(".")
    parent = f"projects/{PROJECT}/datasets/{dataset}/tables/{table}"
    wanted = types.WriteStream(type_=types.WriteStream.Type.PENDING)
    blocks = int(server.get(f"blocks:{options.table}"))

    def requests(stream, turn):
        offset = 0
        for number in range(turn, blocks, options.threads):
            reader = pa.ipc.open_stream(server.get(f"block:{options.table}:{number}"))
            for batch in reader:
                step = max(1, batch.num_rows * REQUEST_BYTES // max(batch.nbytes, REQUEST_BYTES))
                for start in range(0, batch.num_rows, step):
                    part = batch.slice(start, step)
                    yield arrow_request(stream, part, offset)
                    offset += part.num_rows

    def append(turn):
        stream = client.create_write_stream(parent=parent, write_stream=wanted).name
        route = (("x-goog-request-params", f"write_stream={stream}"),)
        for response in client.append_rows(requests(stream, turn), metadata=route, timeout=3600):
            if response.error.code:
                sys.exit(f"error: append refused: {response.error.message}")
        client.finalize_write_stream(name=stream)
        return stream

    with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        streams = list(pool.map(append, range(options.threads)))
    request = types.BatchCommitWriteStreamsRequest(parent=parent, write_streams=streams)
    if client.batch_commit_write_streams(request).stream_errors:
        sys.exit("error: commit refused")


MODES = {
    "rows-to-hashes": rows_to_hashes,
    "hashes-to-rows": hashes_to_rows,
    "arrow-to-blocks": arrow_to_blocks,
    "blocks-to-arrow": blocks_to_arrow,
    "count-blocks": count_blocks,
    "rows-to-streams": rows_to_streams,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--rest", required=True)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--table", required=True, help="DATASET.TABLE")
    parser.add_argument("--key", help="column that names a row; its number without one")
    parser.add_argument("--prefix", help="of the keys of rows; row:DATASET.TABLE: without one")
    parser.add_argument("--threads", type=int, default=2, help="of the arrow-wise modes")
    options = parser.parse_args()
    options.prefix = options.prefix or f"row:{options.table}:"
    MODES[options.mode](options, redis.Redis.from_url(os.environ["REDIS_URL"]))


if __name__ == "__main__":
    main()
