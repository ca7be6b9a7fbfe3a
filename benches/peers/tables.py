"""The tables of the comparison: what they hold, rekindle's plans for them, the peers' SQL, and what Redis must hold then.

Invariant: every peer's SQL is made from the same list of columns, in the same two forms: as one writes it down, and as
fast as we could make it.
"""

import dataclasses
import datetime
import decimal
import json
import math
import subprocess

from harness import Failure

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# From a time in the rows; the longest that a plan may say, so that nothing expires in a run.
TTL_DAYS = 3650
# Rows of the wide table per row of the others: it has as many times the columns.
WIDE_SHARE = 5
ACCOUNTS_PER_SCALE = 100_000


@dataclasses.dataclass(frozen=True)
class Column:
    name: str
    kind: str
    is_nullable: bool = False

    def text(self, form):
        """Returns its text in SQL. Times are microseconds since 1970, which Redis keeps in fewer bytes than text."""
        if self.kind == "time":
            if form == "plain":
                return f"(extract(epoch FROM {self.name}) * 1000000)::bigint::text"
            return f"(date_part('epoch', {self.name}) * 1e6)::int8::text"
        # A cast of char(n) to text would cut its blanks off.
        return f"concat({self.name})" if self.kind == "char" else f"{self.name}::text"


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    relation: str
    prefix: str
    key: str
    # Of the whole row, in the table's order.
    columns: tuple
    # What a hash holds.
    fields: tuple
    # The time that a key's expiry counts from.
    time: str
    # Returns the rows of a table that a run over so many rows of builds has.
    rows_of: object
    create: object

    def hash_columns(self):
        return [column for name in self.fields for column in self.columns if column.name == name]

    def under(self, relation):
        """Returns the same table under another name."""
        return dataclasses.replace(self, relation=relation, name=relation.replace("_", "-"))

    def plan(self, layout):
        """Returns rekindle's plan; `whole` has every column in a hash, `typed` all but jsonb."""
        kind = "json" if layout == "json" else "hash"
        names = self.fields if layout in ("hash", "expiry") else [c.name for c in self.columns]
        if layout == "typed":
            names = [column.name for column in self.columns if column.kind != "json"]
        more = f'ttl = "{TTL_DAYS}d"\nttl_from = "{self.time}"\n' if layout == "expiry" else ""
        return (
            '[alloydb]\nurl = "${env:ALLOYDB_URL}"\n[redis]\nurl = "${env:REDIS_URL}"\n'
            f'[[route]]\nname = "{self.name}"\ntable = "alloydb:public.{self.relation}"\n'
            f'key = "{self.prefix}{{{self.key}}}"\ntype = "{kind}"\ncolumns = {json.dumps(list(names))}\n{more}'
        )

    def hash_sql(self, form):
        """Returns one HSET per row in the Redis protocol, and one PEXPIREAT where the form is `expiry`."""
        columns = self.hash_columns()
        texts = [f"'{self.prefix}' || {self.key} AS k"] if form == "plain" else [f"{self.key}::text AS k"]
        texts += [f"{self._empty(column, form)} AS c{number}" for number, column in enumerate(columns)]
        if form == "plain":
            head = f"E'*{2 + 2 * len(columns)}\\r\\n$4\\r\\nHSET\\r\\n$' || octet_length(k) || E'\\r\\n' || k"
        else:
            head = f"{self._count(columns)} || E'\\r\\n$4\\r\\nHSET\\r\\n$' || {self._key_bulk()}"
        sql = f"SELECT {head}"
        for number, column in enumerate(columns):
            bulk = f"E'\\r\\n${len(column.name)}\\r\\n{column.name}\\r\\n$' || octet_length(c{number}) || E'\\r\\n' || c{number}"
            # Left out, a null costs Redis less than an empty field.
            sql += f"\n    || coalesce({bulk}, '')" if column.is_nullable and form != "plain" else f"\n    || {bulk}"
        if form == "expiry":
            texts.append(f"((date_part('epoch', {self.time}) * 1e3)::int8 + {TTL_DAYS * 86_400_000})::text AS at")
            sql += f"\n    || E'\\r\\n*3\\r\\n$9\\r\\nPEXPIREAT\\r\\n$' || {self._key_bulk()}"
            sql += "\n    || E'\\r\\n$' || octet_length(at) || E'\\r\\n' || at"
        # psql's newline after each row completes the last \r\n. OFFSET 0 keeps the planner from making a text twice.
        once = "" if form == "plain" else " OFFSET 0"
        return sql + f" || E'\\r'\nFROM (SELECT {', '.join(texts)}\n    FROM {self.relation}{once}) AS texts;\n"

    def json_sql(self, form):
        """Returns one SET per row in the Redis protocol: the whole row as PostgreSQL's own JSON."""
        if form == "plain":
            key, once = f"'{self.prefix}' || {self.key} AS k", ""
            head = "E'*3\\r\\n$3\\r\\nSET\\r\\n$' || octet_length(k) || E'\\r\\n' || k"
        else:
            key, once = f"{self.key}::text AS k", " OFFSET 0"
            head = f"E'*3\\r\\n$3\\r\\nSET\\r\\n$' || {self._key_bulk()}"
        return (
            f"SELECT {head} || E'\\r\\n$' || octet_length(j) || E'\\r\\n' || j || E'\\r'\n"
            f"FROM (SELECT {key}, row_to_json({self.relation})::text AS j FROM {self.relation}{once}) AS texts;\n"
        )

    def script(self):
        """Returns what python_loader.py has to know."""
        columns = self.hash_columns()
        key = f"'{self.prefix}' || {self.key}"
        texts = [f"concat({c.name})" if c.kind == "char" else f"{c.name}::text" for c in columns]
        return {
            "relation": self.relation,
            "prefix": self.prefix,
            "key": self.key,
            "fields": list(self.fields),
            "hash_sql": f"SELECT {key}, {', '.join(texts)} FROM {self.relation}",
            "json_sql": f"SELECT {key}, row_to_json({self.relation})::text FROM {self.relation}",
            "columns": [column.name for column in self.columns],
            "columns_without_json": [column.name for column in self.columns if column.kind != "json"],
        }

    def _empty(self, column, form):
        text = column.text(form)
        return f"coalesce({text}, '')" if column.is_nullable and form == "plain" else text

    def _key_bulk(self):
        return f"{len(self.prefix)} + octet_length(k) || E'\\r\\n{self.prefix}' || k"

    @staticmethod
    def _count(columns):
        nullable = [f"c{number}" for number, column in enumerate(columns) if column.is_nullable]
        words = 2 + 2 * (len(columns) - len(nullable))
        if not nullable:
            return f"E'*{words}'"
        if len(nullable) == 1:
            return f"CASE WHEN {nullable[0]} IS NULL THEN E'*{words}' ELSE E'*{words + 2}' END"
        return f"'*' || {words} + 2 * num_nonnulls({', '.join(nullable)})"

    def check(self, servers, redis, layout, tool, ids, rows):
        """Compares the number of keys with the number of rows, and random keys with their rows."""
        keys = redis.call("DBSIZE")
        if keys != rows:
            raise Failure(f"{tool} left {keys} keys for {rows} rows of {self.relation}")
        wanted = ",".join(str(number) for number in ids)
        found = servers.sql(
            f"SELECT row_to_json({self.relation}) FROM {self.relation} WHERE {self.key} IN ({wanted})"
        )
        if len(found) != len(ids):
            raise Failure(f"{len(found)} of {len(ids)} sampled rows of {self.relation} found")
        kinds = {column.name: column.kind for column in self.columns}
        for row in (json.loads(line, parse_float=decimal.Decimal) for line in found):
            key = f"{self.prefix}{row[self.key]}"
            there = stored(redis, key, layout)
            here = row if layout == "json" else {name: row[name] for name in self.fields}
            here, there = canonical(kinds, here), there and canonical(kinds, there)
            if there != here:
                raise Failure(f"{tool}: {key} holds {there}, its row says {here}")
            expires_ms = redis.call("PEXPIRETIME", key)
            wanted_ms = -1
            if layout == "expiry":
                wanted_ms = instant(row[self.time]) // 1000 + TTL_DAYS * 86_400_000
            if abs(expires_ms - wanted_ms) > 1:
                raise Failure(f"{tool}: {key} expires at {expires_ms} ms, its row says {wanted_ms}")


def stored(redis, key, layout):
    """Returns what a key holds, as the members of a row; None where it is not there."""
    if layout == "json":
        text = redis.call("GET", key)
        return None if text is None else json.loads(text, parse_float=decimal.Decimal)
    flat = redis.call("HGETALL", key)
    # A null may be left out or written as empty text.
    return {name: text for name, text in zip(flat[::2], flat[1::2]) if text != ""} if flat else None


def canonical(kinds, row):
    """Makes rows comparable whose values are written differently: nulls left out, times as instants."""
    found = {}
    for name, value in row.items():
        if value is not None and value != "":
            found[name] = as_value(kinds[name], value) if name in kinds else value
    return found


def as_value(kind, value):
    if kind == "time":
        return instant(value)
    if kind in ("number", "float"):
        value = decimal.Decimal(str(value))
        return float(value) if kind == "float" else value
    if kind == "bool":
        return str(value).lower()
    if kind in ("json", "array") and isinstance(value, str):
        if kind == "array" and value.startswith("{"):
            # PostgreSQL's own text; the words of these tables need no quotes.
            value = [word for word in value[1:-1].split(",") if word]
        else:
            value = json.loads(value, parse_float=decimal.Decimal)
    return [str(word) for word in value] if kind == "array" else value


def instant(text):
    """Returns microseconds since 1970 from ISO 8601, PostgreSQL's text or that number itself; UTC without a zone."""
    if isinstance(text, int) or text.isdigit():
        return int(text)
    text = text.replace(" ", "T").replace("Z", "+00:00")
    if text[-3] in "+-":
        text += ":00"
    elif text[-6] not in "+-":
        text += "+00:00"
    head, zone = text[:-6], text[-6:]
    seconds, _, fraction = head.partition(".")
    moment = datetime.datetime.fromisoformat(seconds + zone) - EPOCH
    return moment // datetime.timedelta(microseconds=1) + int(fraction.ljust(6, "0") if fraction else 0)


def create_accounts(servers, rows):
    """Makes the tables of pgbench, with so many accounts, and a time for the expiry."""
    scale = math.ceil(rows / ACCOUNTS_PER_SCALE)
    command = ["pgbench", "-i", "-q", "-s", scale, *servers.psql_command[2:]]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"pgbench: {done.stderr.strip()}")
    if scale * ACCOUNTS_PER_SCALE != rows:
        servers.sql(f"DELETE FROM pgbench_accounts WHERE aid > {rows}")
    # A constant default is not stored in the rows.
    servers.sql("ALTER TABLE pgbench_accounts ADD due_at timestamptz NOT NULL DEFAULT '2026-01-01 00:00:00+00'")
    servers.sql("VACUUM FULL pgbench_accounts")
    servers.sql("VACUUM ANALYZE pgbench_accounts")


def create_shipments(servers, rows):
    for statement in (SHIPMENTS_DDL, SHIPMENTS_ROWS.format(rows=rows), "ALTER TABLE shipments ADD PRIMARY KEY (id)",
                      "VACUUM ANALYZE shipments"):
        servers.sql(statement)


def columns(text):
    """Parses `name:kind` words; a nullable one ends in `?`."""
    found = []
    for word in text.split():
        name, kind = word.rstrip("?").split(":")
        found.append(Column(name, kind, word.endswith("?")))
    return tuple(found)


BUILDS = Table(
    name="builds", relation="builds", prefix="build:", key="id",
    columns=columns("id:number repo_id:number status:text started_at:time finished_at:time? artifact_sha:text "
                    "log_bytes:number author:text? duration_s:float? meta:json updated_at:time"),
    fields=("repo_id", "status", "started_at", "finished_at", "artifact_sha", "log_bytes"),
    time="started_at", rows_of=lambda rows: rows, create=lambda servers, rows: None,
)
ACCOUNTS = Table(
    name="accounts", relation="pgbench_accounts", prefix="account:", key="aid",
    columns=columns("aid:number bid:number? abalance:number? filler:char? due_at:time"),
    fields=("bid", "abalance", "filler"),
    time="due_at", rows_of=lambda rows: rows, create=create_accounts,
)
WIDE = columns(
    "id:number customer_id:number warehouse_id:number reference:text state:text carrier:text country:char "
    "currency:char total:number tax:number? discount:number? weight_kg:float? length_cm:float? width_cm:float? "
    "height_cm:float? is_express:bool is_gift:bool? is_insured:bool placed_at:time packed_at:time? shipped_at:time? "
    "delivered_at:time? due_on:text? local_time:time? cutoff:text? recipient:text street:text city:text "
    "postcode:text? phone:text? email:text? note:text? tags:array? parcel_ids:array? attrs:json? attempts:number "
    "priority:number score:float? checksum:text updated_at:time"
)
SHIPMENTS = Table(
    name="shipments", relation="shipments", prefix="shipment:", key="id", columns=WIDE,
    fields=tuple(column.name for column in WIDE if column.name != "id"),
    time="placed_at", rows_of=lambda rows: max(1, rows // WIDE_SHARE), create=create_shipments,
)
TABLES = {table.name: table for table in (BUILDS, ACCOUNTS, SHIPMENTS)}

SHIPMENTS_DDL = """
    CREATE TABLE shipments (
        id bigint NOT NULL, customer_id integer NOT NULL, warehouse_id smallint NOT NULL, reference uuid NOT NULL,
        state text NOT NULL, carrier varchar(20) NOT NULL, country char(2) NOT NULL, currency char(3) NOT NULL,
        total numeric(12, 2) NOT NULL, tax numeric(12, 2), discount numeric(8, 4), weight_kg float8, length_cm real,
        width_cm real, height_cm real, is_express boolean NOT NULL, is_gift boolean, is_insured boolean NOT NULL,
        placed_at timestamptz NOT NULL, packed_at timestamptz, shipped_at timestamptz, delivered_at timestamptz,
        due_on date, local_time timestamp, cutoff time, recipient text NOT NULL, street text NOT NULL,
        city text NOT NULL, postcode varchar(12), phone text, email text, note text, tags text[],
        parcel_ids bigint[], attrs jsonb, attempts integer NOT NULL, priority smallint NOT NULL, score float8,
        checksum text NOT NULL, updated_at timestamptz NOT NULL
    )
"""
# A note is there for every fourth row, and longer than a listpack takes (64 bytes) for every sixteenth.
SHIPMENTS_ROWS = """
    INSERT INTO shipments
    SELECT i, h % 900001, h % 97, md5(i::text)::uuid,
        (ARRAY['placed', 'packed', 'shipped', 'delivered', 'returned'])[1 + h % 5],
        (ARRAY['DHL', 'UPS', 'FedEx', 'Colissimo', 'Swiss Post'])[1 + h % 5],
        (ARRAY['DE', 'FR', 'CH', 'US', 'JP'])[1 + h % 5], (ARRAY['EUR', 'EUR', 'CHF', 'USD', 'JPY'])[1 + h % 5],
        (h % 10000000)::numeric / 100, CASE WHEN h % 7 > 0 THEN (h % 1900000)::numeric / 100 END,
        CASE WHEN h % 5 = 0 THEN (h % 10000)::numeric / 10000 END, CASE WHEN h % 9 > 0 THEN h % 50000 / 1000.0 END,
        CASE WHEN h % 9 > 0 THEN h % 1200 / 10.0 END, CASE WHEN h % 9 > 0 THEN h % 800 / 10.0 END,
        CASE WHEN h % 9 > 0 THEN h % 600 / 10.0 END, h % 6 = 0, CASE WHEN h % 3 > 0 THEN h % 11 = 0 END, h % 2 = 0,
        placed, CASE WHEN h % 5 > 0 THEN placed + interval '3 hours' END,
        CASE WHEN h % 5 > 1 THEN placed + interval '1 day 2 hours' END,
        CASE WHEN h % 5 > 2 THEN placed + interval '3 days 1.25 seconds' END,
        CASE WHEN h % 8 > 0 THEN placed::date + 4 END, CASE WHEN h % 8 > 0 THEN placed AT TIME ZONE 'UTC' END,
        CASE WHEN h % 8 > 0 THEN time '08:30' + h % 600 * interval '1 minute' END,
        'Recipient ' || h % 100003, h % 300 || ' Station Road', 'City ' || h % 5003,
        CASE WHEN h % 20 > 0 THEN lpad((h % 99999)::text, 5, '0') END, CASE WHEN h % 3 > 0 THEN '+49' || h END,
        CASE WHEN h % 4 > 0 THEN 'r' || h || '@example.org' END,
        CASE WHEN h % 16 = 0 THEN repeat('ring twice, then call; ', 4) WHEN h % 4 = 0 THEN 'leave at the door' END,
        CASE WHEN h % 3 = 0 THEN ARRAY['fragile', 'batch' || h % 50] END,
        CASE WHEN h % 2 = 0 THEN ARRAY[h, h + i] END,
        CASE WHEN h % 4 > 0 THEN jsonb_build_object('zone', h % 40, 'lane', 'L' || h % 9, 'hub', h % 2 = 0) END,
        h % 4, h % 10, CASE WHEN h % 6 > 0 THEN h / 4294967296.0 END, left(md5(h::text), 16),
        placed + interval '4 days'
    FROM (
        SELECT i, hashint8(i)::bigint & 2147483647 AS h,
            timestamptz '2024-01-01 00:00:00+00' + i * interval '13.000457 seconds' AS placed
        FROM generate_series(1::bigint, {rows}) AS i
    ) AS seeds
"""
