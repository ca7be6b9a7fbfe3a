"""The figures that rekindle is held to: from measured runs to a ratio, its spread and a verdict, and the report of all.

Invariant: a figure that was not measured is named as such, and never counts as met.
"""

import dataclasses

import harness

# Of a figure that may only fall: the measured value has to be at most the floor.
AT_MOST, AT_LEAST = "<=", ">="
# Growth of the peak memory, 1 M to 10 M rows, up to which it counts as flat.
FLAT = 1.1
MIB = 1024 * 1024
SERVERS = {"postgres": "PostgreSQL", "stand_in": "stand-in", "redis": "Redis"}


@dataclasses.dataclass(frozen=True)
class Figure:
    group: str
    name: str
    floor: float
    goal: float
    # Our tool and the peer that the floor counts against; the better peers are told beside it.
    ours: str = None
    peer: str = None
    beside: tuple = ()
    unit: str = "x"
    sense: str = AT_LEAST


SPEED = "rows_per_second"
FIGURES = (
    Figure("hash", "live HSET / live one-liner", 1.4, 1.6, "rekindle-command", "one-liner-plain", ("one-liner",)),
    Figure("hash", "live HSET / prepared file of HSET", 0.85, 1.0, "rekindle-command", "prepared"),
    Figure("hash", "live RESTORE / live one-liner", 1.8, 2.3, "rekindle-restore", "one-liner-plain", ("one-liner",)),
    Figure("hash", "live RESTORE / prepared file of HSET", 1.25, 1.6, "rekindle-restore", "prepared"),
    Figure("expiry", "with expiry: live RESTORE / prepared HSET + PEXPIREAT", 1.3, 1.8,
           "rekindle-restore-expiry", "prepared-expiry"),
    Figure("hash", "live RESTORE / psycopg + redis-py script", 6, 8, "rekindle-restore", "script-plain", ("script",)),
    Figure("json", "JSON strings / live one-liner", 2.3, 3, "rekindle-json", "one-liner-json-plain", ("one-liner-json",)),
    Figure("json", "JSON strings / script", 9, 12, "rekindle-json", "script-json-plain",
           ("script-json", "script-json-mset")),
    Figure("rdb", "RDB written", 1.0e6, 1.3e6, "rekindle-rdb", unit=" rows/s"),
    Figure("rdb", "RDB written and loaded / live one-liner", 3.5, 4.5, "rekindle-rdb", "one-liner-plain"),
    Figure("cpu", "our own CPU per row, RESTORE, decode to payload", 1.1, 0.8, "transform", unit=" us", sense=AT_MOST),
    Figure("extract", "COPY to typed arrow, two ranges / connectorx, no jsonb", 1.5, 2.2,
           "extract-typed", "connectorx-typed"),
    Figure("extract", "COPY to typed arrow, two ranges / connectorx, with jsonb", 1.5, 2.2, "extract-whole", "connectorx-whole"),
    Figure("extract", "peak memory of that read, no jsonb", 100, 64, "extract-typed", unit=" MiB", sense=AT_MOST),
    Figure("extract", "peak memory of that read, with jsonb", 100, 64, "extract-whole", unit=" MiB", sense=AT_MOST),
    Figure("blocks", "blocks there / smaller of stand-in and codec", 0.8, 0.95, "rekindle-backup"),
    Figure("blocks", "blocks back / smaller of stand-in and codec", 0.8, 0.95, "rekindle-restore"),
    Figure("record", "digest and journal together, cost", 8, 4, "engine", "engine-bare", unit=" %", sense=AT_MOST),
    Figure("large", "rows/s of ten times the rows / of one", 0.9, 1.0, "rekindle-large", "rekindle-small"),
    Figure("large", "peak memory of ten times the rows / of one", FLAT, 1.0, "rekindle-large", "rekindle-small",
           sense=AT_MOST),
)
# Of these, only builds are measured; the others are repeated on every table.
EVERY_TABLE = ("hash", "expiry", "json")


def value_of(figure, groups):
    """Returns median and extremes of a figure by round, or None where its tools did not run."""
    runs = groups.get(figure.group, {})
    if figure.ours not in runs or (figure.peer and figure.peer not in runs):
        return None
    ours, theirs = runs[figure.ours], runs.get(figure.peer)
    if figure.group == "record":
        transforms = groups["cpu"]["transform"]
        return spread_of([cost(one, other, transforms) for one, other in zip(ours, theirs, strict=True)])
    if figure.group == "blocks":
        return spread_of([run["of_limit"] for run in ours])
    if "memory" in figure.name:
        peaks = [run["peak_rss_bytes"] for run in ours]
        if not theirs:
            return spread_of([peak / MIB for peak in peaks])
        return spread_of([peak / other["peak_rss_bytes"] for peak, other in zip(peaks, theirs, strict=True)])
    if figure.name == "RDB written":
        return spread_of([run["written_rows_per_second"] for run in ours])
    if figure.group == "cpu":
        return spread_of([run["own_cpu_us_per_row"] for run in ours])
    return ratio_of(ours, theirs)


def cost(engine, bare, transforms):
    """Returns by how many percent ledger, journal and digest together slow a load down.

    Ledger and journal are left out in the bare run. The digest has no switch: its CPU time is taken as if all of it
    lay on the path that the load waits for, which is the most that it can cost.
    """
    seconds_per_row = 1 / engine[SPEED]
    digest = min(run["of_which"]["row hash"] for run in transforms) / 1e6
    return 100 * (seconds_per_row - 1 / bare[SPEED] + digest) / (1 / bare[SPEED] - digest)


def spread_of(values):
    return {**harness.spread(values), "by_round": values}


def ratio_of(ours, theirs):
    """Returns the ratio of the medians, and the smallest and largest of one round."""
    result = [{"rows_per_second": harness.spread([run[SPEED] for run in runs]), "runs": runs} for runs in (ours, theirs)]
    ratio = harness.ratio(*result)
    return {"median": ratio["of_medians"], "min": ratio["by_round_min"], "max": ratio["by_round_max"]}


def verdicts(table, groups, wanted):
    """Returns one line of the report per figure of the wanted groups."""
    found = []
    for figure in FIGURES:
        if figure.group not in wanted:
            continue
        value, runs = value_of(figure, groups), groups.get(figure.group, {})
        beside = {peer: ratio_of(runs[figure.ours], runs[peer]) for peer in figure.beside if value and peer in runs}
        told = {"table": table, "figure": figure.name, "floor": figure.floor, "goal": figure.goal, "unit": figure.unit}
        found.append({**told, "value": value, "floor_met": met(figure, value, figure.floor),
                      "goal_met": met(figure, value, figure.goal), "beside": beside})
    return found


def met(figure, value, bound):
    if value is None:
        return None
    return value["median"] <= bound if figure.sense == AT_MOST else value["median"] >= bound


def number(value, unit):
    return f"{value:,.0f}{unit}" if abs(value) >= 1000 else f"{value:.2f}{unit}"


def spread_text(value, unit):
    if value is None:
        return "not measured"
    return f"{number(value['median'], unit)} ({number(value['min'], '')} to {number(value['max'], '')})"


def verdict_text(is_met):
    return {None: "-", True: "met", False: "NOT met"}[is_met]


def rows_of(lines):
    for line in lines:
        unit = line["unit"]
        value = spread_text(line["value"], unit)
        value += "".join(f"; against {peer} {spread_text(ratio, unit)}" for peer, ratio in line["beside"].items())
        yield (line["figure"], line["table"], value, f"{number(line['floor'], unit)} {verdict_text(line['floor_met'])}",
               f"{number(line['goal'], unit)} {verdict_text(line['goal_met'])}")


def print_lines(lines):
    for figure, table, value, floor, goal in rows_of(lines):
        print(f"{figure:<58}{table:<11}floor {floor:<22}goal {goal:<22}{value}")


def markdown(results):
    """Returns benches/RESULTS.md: each result under a heading of its own, in the order given."""
    text = ["# Results", "",
            "What `benches/peers/all` has measured last; `benches/README.md` says how, what is compared with what, and where "
            "the time goes.", "",
            "The median of all rounds, and in brackets the smallest and largest of a round. Floors count against the peers "
            "as one writes them down; the fastest that we could make of them are told beside."]
    for result in results:
        text += section(result)
    return "\n".join(text) + "\n"


def section(result):
    """Returns the lines of one result: where and how it was measured, its figures, and every tool of every group."""
    where, versions = result["machine"], result["versions"]
    rows = ", ".join(f"{name} {rows:,}" for name, rows in result["rows"].items())
    text = [
        "", f"## {rows}; {result['repeats']} rounds", "",
        f"- {result['started_at']}, {result['minutes']:.0f} minutes; load {where['load_1min_at_start']} at the start, "
        f"{where['load_1min_at_end']} at the end.",
        f"- {where['cpus']} CPUs ({where['cpu']}) shared by all, {where['memory_bytes'] / 1024 ** 3:.0f} GiB, "
        f"Linux {where['kernel']}.",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        f"- `{result['command']}`", "",
        "| figure | table | measured | floor | goal |", "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows_of(result["figures"])), "",
    ]
    text += [f"Not measured: {skipped}." for skipped in result["skipped"]]
    for table, groups in result["runs"].items():
        for group, tools in groups.items():
            names = " / ".join(SERVERS.get(name, name) for name in next(iter(tools.values()))[0]["cpu_us_per_row"])
            text += ["", f"### {table}, {group}", "", f"| tool | k rows/s, median (min to max) | CPU us/row: {names} "
                     "| peak MiB |", "|---|---|---|---|"]
            text += [tool_row(tool, runs) for tool, runs in tools.items()]
            notes = {note for runs in tools.values() for run in runs for note in run.get("notes", ())}
            text += [""] * bool(notes) + sorted(notes)
    return text


def tool_row(tool, runs):
    speed = harness.spread([run[SPEED] / 1e3 for run in runs])
    cpu = " / ".join(
        f"{harness.spread([run['cpu_us_per_row'][name] for run in runs])['median']:.2f}"
        for name in runs[0]["cpu_us_per_row"]
    )
    peaks = [run["peak_rss_bytes"] / MIB for run in runs if run.get("peak_rss_bytes")]
    peak = f"{harness.spread(peaks)['median']:.0f}" if peaks else ""
    return f"| {tool} | {speed['median']:.1f} ({speed['min']:.1f} to {speed['max']:.1f}) | {cpu} | {peak} |"
