"""The tables of a store, and how an older store becomes one of today's."""

import sqlite3
from pathlib import Path

from stillhouse.errors import RunFailed

__all__ = ["SCHEMA_VERSION", "TABLES", "create", "prepare", "refuse_network_disk"]

SCHEMA_VERSION = 3  # 2: stages of attempts, batches; 3: verdicts

TABLES = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS request(
    key TEXT PRIMARY KEY, body BLOB NOT NULL, created REAL NOT NULL, leased_by TEXT, lease_until REAL);
CREATE TABLE IF NOT EXISTS attempt(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, run TEXT NOT NULL, teacher TEXT NOT NULL, transport TEXT NOT NULL,
    started REAL NOT NULL, finished REAL, outcome TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '', http_status INTEGER,
    retry_after_s REAL, served_model TEXT NOT NULL DEFAULT '', fingerprint TEXT NOT NULL DEFAULT '',
    provider_id TEXT NOT NULL DEFAULT '', input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER NOT NULL DEFAULT 0,
    reserved_usd REAL, settled_usd REAL, flags TEXT NOT NULL DEFAULT '', price_id TEXT NOT NULL DEFAULT '', raw BLOB,
    stage TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS attempt_key ON attempt(key);
CREATE INDEX IF NOT EXISTS attempt_run ON attempt(run);
CREATE TABLE IF NOT EXISTS answer(
    key TEXT PRIMARY KEY, attempt INTEGER NOT NULL, text TEXT NOT NULL, reasoning TEXT NOT NULL,
    finish_reason TEXT NOT NULL, served_model TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL, ignored TEXT NOT NULL, cost_usd REAL, logprobs BLOB);
CREATE TABLE IF NOT EXISTS spend(
    run TEXT NOT NULL, teacher TEXT NOT NULL, attempts INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, usd REAL NOT NULL, PRIMARY KEY(run, teacher));
CREATE TABLE IF NOT EXISTS batch_job(
    local_id TEXT PRIMARY KEY, state TEXT NOT NULL, wire TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    run TEXT NOT NULL, teacher TEXT NOT NULL, stage TEXT NOT NULL, owner TEXT NOT NULL, provider_id TEXT NOT NULL DEFAULT '',
    input_sha TEXT NOT NULL, number INTEGER NOT NULL, created REAL NOT NULL, found INTEGER NOT NULL DEFAULT 0,
    not_ours TEXT NOT NULL DEFAULT '', note TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS batch_item(
    local_id TEXT NOT NULL, key TEXT NOT NULL, reserved_usd REAL NOT NULL, attempt INTEGER, line_sha TEXT,
    PRIMARY KEY(local_id, key));
CREATE INDEX IF NOT EXISTS batch_item_key ON batch_item(key);
CREATE TABLE IF NOT EXISTS verdict(
    run TEXT NOT NULL, stage TEXT NOT NULL, number INTEGER NOT NULL, row TEXT NOT NULL, keys TEXT NOT NULL,
    parser TEXT NOT NULL, parser_version TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY(run, stage, number)) WITHOUT ROWID;
"""


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Makes the tables, or brings those of an older store up to date. Raises RunFailed for a store from the future."""
    if _version(db, path) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    version = _version(db, path)  # again: another process may have been first
    columns = {row[1] for row in db.execute("PRAGMA table_info(attempt)")}
    if columns and "stage" not in columns:
        db.execute("ALTER TABLE attempt ADD COLUMN stage TEXT NOT NULL DEFAULT ''")
    if version == 2:
        db.execute("DROP TABLE IF EXISTS verdict")  # of another form, and never written
    if version < SCHEMA_VERSION:
        create(db)
    db.execute("COMMIT")


def _version(db: sqlite3.Connection, path: Path) -> int:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'").fetchone():
        return 0
    found = db.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    version = int(found[0]) if found else 0
    if version > SCHEMA_VERSION:
        raise RunFailed(
            f"the store {path} was written by a newer stillhouse (schema {version}, this one knows {SCHEMA_VERSION}): "
            "upgrade stillhouse or name another folder in STILLHOUSE_STORE"
        )
    return version


def create(db: sqlite3.Connection) -> None:
    """Every table that is not there yet, inside a transaction of the caller's."""
    for statement in TABLES.split(";"):
        db.execute(statement)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))


def refuse_network_disk(folder: Path) -> None:
    """SQLite's write-ahead log needs shared memory, which network file systems do not give."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return
    where, kind = "", ""
    resolved = str(folder.resolve())
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(" ")
        point = fields[1].replace("\\040", " ") if len(fields) > 2 else ""
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(where):
            where, kind = point, fields[2]
    if kind.startswith(("nfs", "cifs", "smb", "afs", "fuse.sshfs")):
        raise RunFailed(
            f"the store folder {folder} lies on a network disk ({kind}), where SQLite loses commits; "
            "name a folder on a local disk in STILLHOUSE_STORE"
        )
