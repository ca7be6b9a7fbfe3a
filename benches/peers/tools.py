"""The tools of the comparison on PostgreSQL and Redis: how each is called, and one measured run of each.

Invariant: a run counts only when Redis then holds exactly the rows of the table and a sample of random keys says what
the table says; any difference ends the comparison.
"""

import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import harness
from harness import Failure

LOAD_POLL_SECONDS = 0.02
REPLY_LOADING = "LOADING"

# Group -> tool -> the layout it leaves in Redis, and what it is. A group's tools alternate in every round.
GROUPS = {
    "hash": {
        "rekindle-restore": ("hash", "rekindle rebuild redis --way restore; journal, digest and read-back on"),
        "rekindle-command": ("hash", "the same with --way command: HSET"),
        "rekindle": ("hash", "the same by default: a trial of both ways in front"),
        "one-liner-plain": ("hash", "psql that writes the Redis protocol in SQL | redis-cli --pipe, as one writes it down"),
        "one-liner": ("hash", "the same with the fastest SQL found"),
        "prepared": ("hash", "redis-cli --pipe with a file of HSET made before; it extracts and transforms nothing"),
        "script-plain": ("hash", "psycopg rows as dicts, redis-py hset(mapping=), pipelines of 1,000"),
        "script": ("hash", "the same with SQL that makes the texts, no dict per row"),
    },
    "expiry": {
        "rekindle-restore-expiry": ("expiry", "rekindle-restore with ttl"),
        "prepared-expiry": ("expiry", "redis-cli --pipe with a file of HSET and PEXPIREAT made before"),
    },
    "json": {
        "rekindle-json": ("json", "rekindle rebuild redis, whole rows as JSON strings"),
        "one-liner-json-plain": ("json", "row_to_json in SQL as SET | redis-cli --pipe, as one writes it down"),
        "one-liner-json": ("json", "the same with the fastest SQL found"),
        "script-json-plain": ("json", "psycopg rows as dicts, json.dumps, redis-py set, pipelines of 1,000"),
        "script-json": ("json", "the same with row_to_json in SQL, no dict per row"),
        "script-json-mset": ("json", "the same with MSET of 1,000 keys"),
    },
    "rdb": {
        "rekindle-rdb": ("hash", "rekindle rebuild redis --to-rdb; the file loaded by a redis-server until it answers"),
        "one-liner-plain": ("hash", "see above"),
    },
    "record": {
        "engine": ("hash", "rekindle's engine alone, RESTORE: no set-up, no read-back"),
        "engine-bare": ("hash", "the same without ledger and journal"),
    },
    "extract": {
        "extract-typed": (None, "rekindle's COPY in two ranges into typed arrow columns, no jsonb, dropped"),
        "connectorx-typed": (None, "connectorx with two partitions into arrow, the same columns"),
        "extract-whole": (None, "the same with the jsonb column"),
        "connectorx-whole": (None, "the same with the jsonb column"),
    },
    "cpu": {
        "transform": (None, "COPY bytes to RESTORE payloads, CPU time of the one thread"),
    },
}
LOADER_MODES = {
    "script-plain": "hash-plain", "script": "hash", "script-json-plain": "json-plain", "script-json": "json",
    "script-json-mset": "json-mset", "connectorx-typed": "connectorx", "connectorx-whole": "connectorx-all",
}
SQL = {
    "one-liner-plain": ("hash", "plain"), "one-liner": ("hash", "tuned"),
    "one-liner-json-plain": ("json", "plain"), "one-liner-json": ("json", "tuned"),
}
PREPARED = {"prepared": "tuned", "prepared-expiry": "expiry"}
PLANS = ("hash", "expiry", "json", "typed", "whole")


class Bench:
    """Runs tools on one table of one set of servers."""

    def __init__(self, servers, programs, table, rows, args):
        self.servers = servers
        self.programs = programs
        self.table = table
        self.rows = rows
        self.args = args
        self.folder = pathlib.Path(servers.folder) / table.name
        self.folder.mkdir()
        for layout in PLANS:
            self._file(f"{layout}.toml").write_text(table.plan(layout))
        for tool, (kind, form) in SQL.items():
            sql = table.json_sql(form) if kind == "json" else table.hash_sql(form)
            self._file(f"{tool}.sql").write_text(sql)
        self._file("table.json").write_text(json.dumps(table.script()))

    def close(self):
        shutil.rmtree(self.folder)

    def prepare(self, tool):
        """Makes the file that a tool sends, outside of any time."""
        if tool in PREPARED:
            sql = self._file(f"{tool}.sql")
            sql.write_text(self.table.hash_sql(PREPARED[tool]))
            command = [harness.HERE / "one-liner", "prepare", sql, self._file(f"{tool}.resp")]
            harness.run(command, self.servers.env, self.args.seconds_max)

    def run(self, tool, layout, ids):
        """Runs a tool once, measured, and checks what it left."""
        servers = self.servers
        servers.empty_redis()
        servers.sql("CHECKPOINT")
        servers.settle()
        state = tempfile.mkdtemp(prefix="state-", dir=self.folder)
        # A moment of rest, so that the clean-up before is not counted.
        time.sleep(self.args.rest)
        try:
            before = servers.cpu()
            done = harness.run(self._command(tool, state), servers.env, self.args.seconds_max)
            servers.settle()
            after = servers.cpu()
            result = self._result(tool, done, {name: after[name] - before[name] for name in after})
            if tool == "rekindle-rdb":
                self._load_rdb(result, pathlib.Path(state) / "rdb", ids)
            elif layout:
                self.table.check(servers, servers.redis, layout, tool, ids, self.rows)
        finally:
            shutil.rmtree(state, ignore_errors=True)
        return result

    def _command(self, tool, state):
        programs, plan = self.programs, self._file
        if tool.startswith("rekindle"):
            layout = {"rekindle-restore-expiry": "expiry", "rekindle-json": "json"}.get(tool, "hash")
            command = harness.rebuild_command(programs["rekindle"], plan(f"{layout}.toml"), state)
            if tool == "rekindle-rdb":
                return [*command, "--to-rdb", pathlib.Path(state) / "rdb"]
            way = "command" if tool == "rekindle-command" else "restore" if "restore" in tool else None
            return [*command, "--way", way] if way else command
        if tool in SQL:
            fetch = ["20000"] if tool.endswith("-plain") else []
            return [harness.HERE / "one-liner", "live", self._file(f"{tool}.sql"), *fetch]
        if tool in PREPARED:
            return [harness.HERE / "one-liner", "send", self._file(f"{tool}.resp")]
        if tool in LOADER_MODES:
            return [programs["python"], harness.HERE / "python_loader.py", LOADER_MODES[tool], self._file("table.json")]
        measure = programs["measure"]
        if tool.startswith("extract"):
            return [measure, "extract", "--ranges", "2", "--plan", plan(f"{tool.removeprefix('extract-')}.toml")]
        if tool == "transform":
            return [measure, "transform", "--plan", plan("hash.toml")]
        return [measure, "carry", "--plan", plan("hash.toml"), *(["--bare"] if tool == "engine-bare" else [])]

    def _result(self, tool, done, servers_cpu):
        used = {"client": done.client_cpu_seconds, **servers_cpu}
        result = {"seconds": done.seconds}
        if tool.startswith("rekindle"):
            summary = harness.summary_of(done.stdout)
            harness.check_summary(summary, self.rows)
            result["own_seconds"] = summary["seconds"]
            result["peak_rss_bytes"] = summary["peak_rss_bytes"]
        elif not tool.startswith(("one-liner", "prepared", "script")):
            # What measures itself leaves start-up and preparation out.
            told = json.loads(done.stdout)
            if told["rows"] != self.rows:
                raise Failure(f"{tool} carried {told['rows']} of {self.rows} rows")
            result.update(told)
        result["rows_per_second"] = round(self.rows / result["seconds"], 1)
        result["cpu_us_per_row"] = {name: round(seconds * 1e6 / self.rows, 3) for name, seconds in used.items()}
        return result

    def _load_rdb(self, result, folder, ids):
        """Has a redis-server load the file, to its first answer, and checks what it then holds."""
        files = list(folder.glob("*.rdb"))
        if len(files) != 1:
            raise Failure(f"rekindle-rdb wrote {len(files)} files instead of one for one server")
        with loading_redis(folder, files[0].name, self.args.seconds_max) as (redis, seconds):
            self.table.check(self.servers, redis, "hash", "rekindle-rdb", ids, self.rows)
        result["written_rows_per_second"] = result["rows_per_second"]
        result["load_seconds"] = seconds
        result["seconds"] += seconds
        result["rows_per_second"] = round(self.rows / result["seconds"], 1)

    def _file(self, name):
        return self.folder / name


@contextlib.contextmanager
def loading_redis(folder, name, seconds_max):
    """Starts a redis-server on an RDB file; yields a connection once it answers, and the seconds until then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder, "--dbfilename", name]
    started = time.monotonic()
    process = subprocess.Popen(
        ["redis-server", *map(str, options)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    redis = None
    try:
        while redis is None:
            redis = answering(port)
            if process.poll() is not None or time.monotonic() - started > seconds_max:
                raise Failure(f"redis-server did not load {name}")
            if redis is None:
                time.sleep(LOAD_POLL_SECONDS)
        yield redis, time.monotonic() - started
    finally:
        if redis:
            redis.close()
        process.terminate()
        process.wait(harness.STOP_SECONDS_MAX)


def answering(port):
    """Returns a connection to a server that answers, None while there is none or it still loads."""
    try:
        redis = harness.Redis(f"redis://127.0.0.1:{port}")
    except ConnectionRefusedError:
        return None
    try:
        if redis.call("PING") == "PONG":
            return redis
    except Failure as failure:
        if REPLY_LOADING not in str(failure):
            raise
    redis.close()
    return None


def knows_rdb(rekindle):
    """Tells whether this build can write RDB files."""
    done = subprocess.run([rekindle, "rebuild", "redis", "--help"], capture_output=True, text=True, check=False)
    return "--to-rdb" in done.stdout


def find_versions(servers, programs):
    packages = {"psycopg": "psycopg", "redis-py": "redis", "hiredis": "hiredis", "connectorx": "connectorx",
                "pyarrow": "pyarrow"}
    ask = f"import importlib.metadata as m; print(*map(m.version, {list(packages.values())}))"
    return {
        "rekindle": harness.version([programs["rekindle"], "--version"]).partition(" ")[2],
        "PostgreSQL and psql": servers.sql("SHOW server_version")[0],
        "Redis": harness.version(["redis-server", "--version"]).split("=")[1].split()[0],
        "Python": harness.version([programs["python"], "--version"]).split()[-1],
        **dict(zip(packages, harness.version([programs["python"], "-c", ask]).split(), strict=True)),
    }
