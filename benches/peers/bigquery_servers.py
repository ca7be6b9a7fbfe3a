"""Throwaway servers for the comparison on BigQuery: the stand-in and two Redis servers; and the table they start from.

Invariant: however the script ends, the servers end with it (after a SIGKILL by the loss of their stdin).
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import harness
import pyarrow
from harness import Failure

CLIENTS = harness.ROOT / "fixtures" / "bigquery-clients"
sys.path.insert(0, str(CLIENTS))
from google.cloud import bigquery  # noqa: E402
from suite import LOCATION, PROJECT, read_client, rest_client  # noqa: E402

READY_SECONDS_MAX = 30
# About a block.
ROWS_PER_CODEC_BATCH = 24_000
# The second table keeps what the first one is set back to.
TABLE, SEEDED = "logs.build_logs", "logs.seeded"
# Ends with its stdin, which redis-server by itself does not.
REDIS_UNTIL_EOF = 'redis-server "$@" >/dev/null & server=$!; cat >/dev/null; kill "$server"; wait "$server"'


class Servers:
    """The stand-in and two Redis servers, one for rows and one for the duplicate; use as a context."""

    def __init__(self, stand_in):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rekindle-peers-"))
        self.processes, self.redis = [], {}
        try:
            ports = {"REDIS_URL": self._start_redis("rows"), "REDIS_DUPLICATE_URL": self._start_redis("duplicate")}
            self.redis_pids = [info(self.redis[name], "server", "process_id") for name in self.redis]
            self.stand_in = self._start(
                [stand_in, "--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--until-eof"], stdout=subprocess.PIPE
            )
            line = self.stand_in.stdout.readline()
            if not line:
                raise Failure(f"{pathlib.Path(stand_in).name} ended with {self.stand_in.wait()}")
            self.at = json.loads(line)
        except BaseException:
            self.close()
            raise
        self.env = {
            **os.environ,
            **{name: f"redis://127.0.0.1:{port}" for name, port in ports.items()},
            "BIGQUERY_REST_URL": self.at["rest"],
            "BIGQUERY_GRPC_URL": self.at["grpc"],
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _start(self, command, **options):
        # A session of its own: Ctrl-C is for us, who then end it.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **options)
        self.processes.append(process)
        return process

    def _start_redis(self, name):
        folder = self.folder / name
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        self._start(["sh", "-c", REDIS_UNTIL_EOF, "redis", *map(str, options)])
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                self.redis[name] = harness.Redis(f"redis://127.0.0.1:{port}")
                return port
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise Failure(f"redis-server did not listen within {READY_SECONDS_MAX} s") from None
                time.sleep(0.05)

    def close(self):
        for redis in self.redis.values():
            redis.close()
        for process in self.processes:
            harness.end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def empty_redis(self):
        for redis in self.redis.values():
            redis.call("FLUSHALL", "SYNC")

    def cpu(self):
        """Returns the CPU seconds used so far by the stand-in and by both Redis servers."""
        return {
            "stand_in": harness.cpu_seconds(self.stand_in.pid),
            "redis": sum(harness.cpu_seconds(pid) for pid in self.redis_pids),
        }

    def used_memory(self):
        """Returns what both Redis servers have allocated, in bytes."""
        return sum(info(redis, "memory", "used_memory") for redis in self.redis.values())


def info(redis, section, name):
    """Returns one integer of INFO."""
    for line in redis.call("INFO", section).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split(":", 1)[1])
    raise Failure(f"INFO {section} says nothing of {name}")


class LogTable:
    """Code Town's build_logs: filled once, emptied and set back as often as wanted, and compared with what it was."""

    def __init__(self, servers, rows, seconds_max):
        self.rows = rows
        self.at = ["--rest", servers.at["rest"], "--grpc", servers.at["grpc"]]
        command = [sys.executable, CLIENTS / "seed.py", *self.at, "--rows", rows, "--unique"]
        harness.run(command, servers.env, seconds_max)
        self.client, self.reader = rest_client(servers.at["rest"]), read_client(servers.at["grpc"])
        self._copy(TABLE, SEEDED)
        self.expected = self._content()
        # Of BigQuery's definition: 8 bytes per number and time, 2 and the UTF-8 bytes per text, nothing per null.
        self.logical_bytes = self._get(TABLE).num_bytes / rows

    def reset(self):
        """Puts back the very rows that were there first, in the same order."""
        self._copy(SEEDED, TABLE)
        self.check_count("reset")

    def empty(self):
        self.client.query(f"TRUNCATE TABLE `{PROJECT}.{TABLE}`").result()
        if self._get(TABLE).num_rows != 0:
            raise Failure("TRUNCATE left rows behind")

    def check_count(self, tool):
        found = self._get(TABLE).num_rows
        if found != self.rows:
            raise Failure(f"{tool} left {found} rows in {TABLE} instead of {self.rows}")

    def check_content(self, tool):
        """Insists that the table holds the seeded rows, in any order."""
        self.check_count(tool)
        found = self._content()
        for name in self.expected.schema.names:
            if found[name] == self.expected[name]:
                continue
            # A client may write the same JSON with other spaces.
            if name != "attrs" or list(map(parsed, found[name])) != list(map(parsed, self.expected[name])):
                raise Failure(f"{tool} changed column {name} of {TABLE}")

    def codec(self, measure, seconds_max):
        """Returns how fast one core makes blocks of these rows, and rows of these blocks."""
        with tempfile.NamedTemporaryFile(suffix=".arrows") as file:
            with pyarrow.ipc.new_stream(file, self.expected.schema) as writer:
                writer.write_table(self.expected, max_chunksize=ROWS_PER_CODEC_BATCH)
            file.flush()
            found = json.loads(harness.run([measure, "codec", file.name], os.environ, seconds_max).stdout)
        if found["rows"] != self.rows:
            raise Failure(f"the codec took {found['rows']} rows instead of {self.rows}")
        return found

    def json_bytes(self):
        """Returns the mean length of a row as compact JSON, members that are null left out."""
        total = 0
        for batch in self.expected.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                row = {name: value for name, value in row.items() if value is not None}
                total += len(json.dumps(row, default=as_json, ensure_ascii=False, separators=(",", ":")).encode())
        return total / self.rows

    def _get(self, table):
        return self.client.get_table(f"{PROJECT}.{table}")

    def _copy(self, source, destination):
        config = bigquery.CopyJobConfig(write_disposition="WRITE_TRUNCATE")
        job = self.client.copy_table(
            f"{PROJECT}.{source}", f"{PROJECT}.{destination}", location=LOCATION, job_config=config
        )
        job.result()

    def _content(self):
        rows = self.client.list_rows(f"{PROJECT}.{TABLE}").to_arrow(bqstorage_client=self.reader)
        return rows.sort_by("log_id").combine_chunks()


def parsed(value):
    text = value.as_py()
    return None if text is None else json.loads(text)


def as_json(value):
    return value.hex() if isinstance(value, bytes) else value.isoformat()
