"""What the scripts of this folder share: throwaway servers, a measured run of a command, a small Redis client.

Invariant: however the script ends, the servers end with it, and so does the command under measurement (after a SIGKILL
by the loss of its servers).
"""

import contextlib
import json
import os
import pathlib
import platform
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LAYOUTS = ("hash", "json")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SETTLE_SECONDS_MAX = 10
STOP_SECONDS_MAX = 60


class Failure(Exception):
    """Ends the script with a message instead of a traceback."""


def say(message):
    """Tells a person; stdout is for results."""
    print(message, file=sys.stderr, flush=True)


def exit_on_signals():
    """Turns signals into an exception, so that the clean-up runs."""

    def stop(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def main_guard(main):
    """Runs main and returns its exit code, errors as one line."""
    exit_on_signals()
    try:
        return main()
    except Failure as failure:
        say(f"error: {failure}")
        return 1


def positive(text):
    """Parses an integer above zero; for argparse."""
    value = int(text.replace("_", ""))
    if value <= 0:
        raise ValueError(text)
    return value


def layout_list(text):
    """Parses `hash,json`; for argparse."""
    layouts = text.split(",")
    if not set(layouts) <= set(LAYOUTS):
        raise ValueError(text)
    return layouts


def binary(path, how):
    """Returns a path that can be run, or says how to get it."""
    if not os.access(path, os.X_OK):
        raise Failure(f"{path} is missing: {how}")
    return pathlib.Path(path).resolve()


def clients_python(folder, requirements):
    """Returns a Python that has Google's clients and what a file of requirements names, installed on first use."""
    maker = ROOT / "fixtures" / "bigquery-clients" / "venv"
    command = [maker, "--with", HERE / requirements, folder.resolve()]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def enter_clients_python(folder):
    """Goes on in the environment that has Google's clients."""
    if pathlib.Path(sys.prefix) == folder.resolve():
        return
    python = clients_python(folder, "requirements-bigquery.txt")
    os.execv(python, [python, *sys.argv])


class Redis:
    """A connection that sends commands and returns replies; enough to check a run."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 6379), timeout=600)
        self.replies = self.socket.makefile("rb")
        if parts.password:
            user = [urllib.parse.unquote(parts.username)] if parts.username else []
            self.call("AUTH", *user, urllib.parse.unquote(parts.password))

    def call(self, *words):
        encoded = [str(word).encode() for word in words]
        message = b"*%d\r\n" % len(encoded)
        message += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        self.socket.sendall(message)
        return self._reply()

    def _reply(self):
        line = self.replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        raise Failure(f"Redis answered {line!r}")

    def close(self):
        self.replies.close()
        self.socket.close()


class Servers:
    """Throwaway PostgreSQL and Redis that hold Code Town; use as a context."""

    def __init__(self, code_town, rows, seconds_max):
        self.rows = rows
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rekindle-peers-"))
        self.log = self.folder / "servers.log"
        self.env = None
        self.redis = None
        command = [code_town, "serve", "--rows", str(rows), "--dir", self.folder, "--until-eof"]
        with open(self.log, "wb") as log:
            # Our end of stdin closes however we end, and so do the servers.
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_ready(seconds_max)
        except BaseException:
            self.close()
            raise

    def _wait_ready(self, seconds_max):
        deadline = time.monotonic() + seconds_max
        while not (self.folder / "env").exists():
            if self.process.poll() is not None:
                raise Failure(f"code-town ended:\n{self.log.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise Failure(f"code-town was not ready after {seconds_max} s")
            time.sleep(0.1)
        words = shlex.split((self.folder / "env").read_text())
        values = dict(word.split("=", 1) for word in words if "=" in word)
        self.env = {**os.environ, **{name: values[name] for name in ("ALLOYDB_URL", "REDIS_URL")}}
        self.psql_command = shlex.split(values["PSQL"])
        self.postgres_pid = int(values["POSTGRES_PID"])
        self.redis_pid = int(values["REDIS_PID"])
        self.redis = Redis(values["REDIS_URL"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.redis:
            self.redis.close()
        end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, text):
        """Runs SQL as superuser and returns the unaligned rows."""
        command = [*self.psql_command, "-Atq", "-v", "ON_ERROR_STOP=1", "-c", text]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"psql: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def warm(self):
        """Reads every byte of the table once, so that no run pays for a cold cache."""
        rows = int(self.sql("SELECT count(hashtext(builds::text)) FROM builds")[0])
        if rows != self.rows:
            raise Failure(f"table builds holds {rows} rows, not {self.rows}")

    def empty_redis(self):
        self.redis.call("FLUSHALL", "SYNC")

    def settle(self):
        """Waits until PostgreSQL has reaped the backends of the last client."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while self._backends() and time.monotonic() < deadline:
            time.sleep(0.02)

    def cpu(self):
        """Returns the CPU seconds used so far by PostgreSQL, ended backends included, and by Redis."""
        postgres = cpu_seconds(self.postgres_pid, with_reaped=True)
        postgres += sum(cpu_seconds(pid, with_reaped=True) for pid in children(self.postgres_pid))
        return {"postgres": postgres, "redis": cpu_seconds(self.redis_pid)}

    def _backends(self):
        names = (command_line(pid) for pid in children(self.postgres_pid))
        return [name for name in names if "rekindle" in name and "127.0.0.1" in name]


def end(process):
    """Ends a server that lives as long as its stdin is open."""
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def stat_fields(pid):
    """Returns the fields of /proc/PID/stat after the name, or None when the process is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def cpu_seconds(pid, with_reaped=False):
    fields = stat_fields(pid)
    if fields is None:
        return 0.0
    # utime, stime, cutime, cstime
    return sum(int(ticks) for ticks in fields[11 : 15 if with_reaped else 13]) / TICKS_PER_SECOND


def children(pid):
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Run:
    """What one run of a command took."""

    def __init__(self, seconds, client_cpu_seconds, stdout, stderr):
        self.seconds = seconds
        self.client_cpu_seconds = client_cpu_seconds
        self.stdout = stdout
        self.stderr = stderr


def run(command, env, seconds_max):
    """Runs a command to its end and measures it; it is killed with all its children when it takes too long."""
    command = [str(word) for word in command]
    with tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        # A session of its own, so that a pipeline is killed whole.
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        timed_out = threading.Event()

        def kill():
            timed_out.set()
            kill_group(process.pid)

        timer = threading.Timer(seconds_max, kill)
        timer.start()
        try:
            stdout = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
            # Popen must not wait for it again.
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            if process.returncode is None:
                kill_group(process.pid)
                process.wait()
            process.stdout.close()
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    name = " ".join([pathlib.Path(command[0]).name, *command[1:2]])
    if timed_out.is_set():
        raise Failure(f"{name} took longer than {seconds_max} s")
    if process.returncode != 0:
        raise Failure(f"{name} ended with {process.returncode}:\n{text[-2000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, stdout.decode(), text)


def kill_group(pid):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def builds_plan(layout):
    """Returns the path of the plan for table builds."""
    return ROOT / "fixtures" / "plans" / f"builds-{layout}.toml"


def rebuild_command(rekindle, plan, state):
    return [rekindle, "rebuild", "redis", "--plan", plan, "--state", state, "--progress", "none", "--json"]


def summary_of(stdout):
    """Returns the summary object that a --json command printed."""
    try:
        value = json.loads(stdout)
    except json.JSONDecodeError as error:
        raise Failure(f"rekindle printed no JSON: {error}") from error
    return value.get("summary", value)


def check_summary(summary, rows):
    """Insists that the run was complete and proven, as the comparison claims."""
    if summary.get("status") != "done" or summary.get("rows") != rows or summary.get("written") != rows:
        told = {name: summary.get(name) for name in ("status", "rows", "written", "rejects")}
        raise Failure(f"rekindle did not carry and prove {rows} rows: {told}")


def version(command):
    """Returns the first line that a --version prints."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


def machine():
    """Describes where this ran, without names of hosts or paths."""
    model = "unknown"
    memory = 0
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) * 1024
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "load_1min_at_start": round(os.getloadavg()[0], 2),
    }


def warn_if_busy(described):
    if described["load_1min_at_start"] > 0.25 * described["cpus"]:
        say(f"warning: load is {described['load_1min_at_start']} before the start; wall times will mean little")


def spread(values):
    """Returns median, min and max."""
    return {"median": round(statistics.median(values), 4), "min": min(values), "max": max(values)}


def speed(values):
    """Formats a spread of rows per second as three columns of thousands."""
    return f"{values['median'] / 1e3:>10.1f}{values['min'] / 1e3:>8.1f}{values['max'] / 1e3:>8.1f}"


def ratio(ours, theirs):
    """Returns how many times more rows per second one result has: by medians, and round by round."""
    by_round = [a["rows_per_second"] / b["rows_per_second"] for a, b in zip(ours["runs"], theirs["runs"], strict=True)]
    return {
        "of_medians": ours["rows_per_second"]["median"] / theirs["rows_per_second"]["median"],
        "by_round_min": min(by_round),
        "by_round_max": max(by_round),
    }


def write_text(path, text):
    """Writes a result file whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2) + "\n")
