"""How fast the stand-in is when nothing is done with the rows: the ceiling that it puts on every tool.

usage: bigquery_floor.py drain-lz4|drain-plain|refill --grpc URL --source DATASET.TABLE
       --table DATASET.TABLE --server-pid PID

drain-*  reads the source: every stream of a read session as raw messages, lz4 in arrow's buffers or none; nothing is decoded
refill   appends the rows of the source to the table as messages made beforehand, through PENDING streams, and commits;
         nothing is encoded in that time

Prints one JSON object: rows, bytes of the messages, seconds, and the CPU seconds that the stand-in took meanwhile.
"""

import argparse
import concurrent.futures
import json
import pathlib
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "bigquery-clients"))
import harness  # noqa: E402
from google.cloud.bigquery_storage_v1 import types  # noqa: E402
from suite import PROJECT, channel, read_client, write_client  # noqa: E402

# As many as rekindle has lanes.
STREAMS = 4
READ = "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"
APPEND = "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows"


def path_of(table):
    dataset, table = table.split(".")
    return f"projects/{PROJECT}/datasets/{dataset}/tables/{table}"


def open_session(options, codec):
    wanted = types.ReadSession(table=path_of(options.source), data_format=types.DataFormat.ARROW)
    codec = types.ArrowSerializationOptions.CompressionCodec[codec]
    wanted.read_options.arrow_serialization_options.buffer_compression = codec
    return read_client(options.grpc).create_read_session(
        parent=f"projects/{PROJECT}", read_session=wanted, max_stream_count=STREAMS
    )


def drain(options, session):
    """Returns the raw messages of every stream."""

    def one(stream):
        call = channel(options.grpc).unary_stream(READ, request_serializer=types.ReadRowsRequest.serialize)
        return list(call(types.ReadRowsRequest(read_stream=stream.name)))

    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        return [message for part in pool.map(one, session.streams) for message in part]


def rows_in(messages):
    return sum(types.ReadRowsResponse.deserialize(message).row_count for message in messages)


def measured(options, messages, work):
    before, start = harness.cpu_seconds(options.server_pid), time.monotonic()
    done = work()
    seconds = time.monotonic() - start
    cpu = harness.cpu_seconds(options.server_pid) - before
    messages = messages or done
    return messages, {"bytes": sum(map(len, messages)), "seconds": seconds, "stand_in_cpu_seconds": cpu}


def run_drain(options, codec):
    def work():
        return drain(options, open_session(options, codec))

    messages, figures = measured(options, None, work)
    return {"rows": rows_in(messages), **figures}


def run_refill(options):
    session = open_session(options, "COMPRESSION_UNSPECIFIED")
    messages = drain(options, session)
    client, parent = write_client(options.grpc), path_of(options.table)
    wanted = types.WriteStream(type_=types.WriteStream.Type.PENDING)
    names = [client.create_write_stream(parent=parent, write_stream=wanted).name for _ in range(STREAMS)]
    batches = [[] for _ in names]
    for number, message in enumerate(messages):
        found = types.ReadRowsResponse.deserialize(message)
        rows = types.AppendRowsRequest.ArrowData(
            writer_schema=types.ArrowSchema(serialized_schema=session.arrow_schema.serialized_schema),
            rows=types.ArrowRecordBatch(serialized_record_batch=found.arrow_record_batch.serialized_record_batch),
        )
        turn = number % STREAMS
        request = types.AppendRowsRequest(write_stream=names[turn], arrow_rows=rows)
        batches[turn].append(types.AppendRowsRequest.serialize(request))

    def append(turn):
        call = channel(options.grpc).stream_stream(APPEND, response_deserializer=types.AppendRowsResponse.deserialize)
        route = (("x-goog-request-params", f"write_stream={names[turn]}"),)
        for response in call(iter(batches[turn]), metadata=route):
            if response.error.code:
                raise harness.Failure(f"append refused: {response.error.message}")

    def work():
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            list(pool.map(append, range(STREAMS)))
        for name in names:
            client.finalize_write_stream(name=name)
        request = types.BatchCommitWriteStreamsRequest(parent=parent, write_streams=names)
        if client.batch_commit_write_streams(request).stream_errors:
            raise harness.Failure("commit refused")

    _, figures = measured(options, [request for part in batches for request in part], work)
    return {"rows": rows_in(messages), **figures}


MODES = {
    "drain-lz4": lambda options: run_drain(options, "LZ4_FRAME"),
    "drain-plain": lambda options: run_drain(options, "COMPRESSION_UNSPECIFIED"),
    "refill": run_refill,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--source", required=True, help="DATASET.TABLE that is read")
    parser.add_argument("--table", required=True, help="DATASET.TABLE that is appended to")
    parser.add_argument("--server-pid", required=True, type=int)
    options = parser.parse_args()
    print(json.dumps(MODES[options.mode](options)))
    return 0


if __name__ == "__main__":
    sys.exit(harness.main_guard(main))
