"""The journal's tables, and the steps from each older form to the next.

``application_id`` says that a file is ours and ``user_version`` how many of the steps below it has had. A step is never
changed once released: a change to the tables is a new step at the end.
"""

#: "incd"; sqlite's ``file`` magic and a guard against opening somebody else's database.
APPLICATION_ID = 0x696E6364

_FIRST = """
CREATE TABLE uploads (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT NOT NULL,
    queue             TEXT NOT NULL,
    kind              TEXT NOT NULL,
    stage             TEXT NOT NULL,
    sequence          INTEGER UNIQUE,
    members           TEXT,             -- a flat upload's own files, JSON, as claimed
    seen_at           TEXT NOT NULL,
    claimed_at        TEXT,
    started_at        TEXT,
    finished_at       TEXT,
    changes           TEXT NOT NULL DEFAULT '[]',
    facts             TEXT,             -- the checked .changes, JSON, while queued and publishing
    operation         TEXT,             -- what an operator asked for, JSON, in place of .changes
    published         TEXT,
    already_published INTEGER NOT NULL DEFAULT 0,
    warnings          TEXT NOT NULL DEFAULT '[]',
    problems          TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX uploads_by_name ON uploads (name, id);
CREATE INDEX uploads_open ON uploads (sequence) WHERE finished_at IS NULL;
CREATE INDEX uploads_ended ON uploads (finished_at) WHERE finished_at IS NOT NULL;

-- What holds for the service as a whole: whether publishing is on hold, and why.
CREATE TABLE service (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    upload  INTEGER NOT NULL REFERENCES uploads,
    at      TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX log_by_upload ON log (upload);

-- Every .changes that was ever published, by its own digest: a replay is known for good.
CREATE TABLE published_changes (
    sha256  TEXT PRIMARY KEY,
    upload  INTEGER NOT NULL REFERENCES uploads,
    file    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Every pool file there ever was: a name is never given to other bytes.
CREATE TABLE pool_files (
    path      TEXT PRIMARY KEY,         -- below the archive root
    size      INTEGER NOT NULL,
    md5       TEXT NOT NULL,
    sha1      TEXT NOT NULL,
    sha256    TEXT NOT NULL,
    upload    INTEGER,                  -- NULL: imported
    added_at  TEXT NOT NULL,
    unused_at TEXT,                     -- since when no suite lists it
    gone_at   TEXT                      -- when it was removed
) STRICT, WITHOUT ROWID;
CREATE INDEX pool_files_unused ON pool_files (unused_at) WHERE unused_at IS NOT NULL AND gone_at IS NULL;

-- Names that a publish is about to give to files in the pool: what a crash leaves behind is known by them.
CREATE TABLE pool_intents (
    path TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE packages (
    id             INTEGER PRIMARY KEY,
    kind           TEXT NOT NULL,       -- deb, udeb, ddeb or dsc
    name           TEXT NOT NULL,
    version        TEXT NOT NULL,
    architecture   TEXT NOT NULL,       -- source for a .dsc
    source         TEXT NOT NULL,
    source_version TEXT NOT NULL,
    component      TEXT NOT NULL,
    upload         INTEGER,             -- NULL: imported
    added_at       TEXT NOT NULL,
    stanza         BLOB NOT NULL,       -- as in its index, with the empty line behind it
    UNIQUE (kind, name, version, architecture)
) STRICT;
CREATE INDEX packages_by_source ON packages (source, source_version);

CREATE TABLE package_files (
    package INTEGER NOT NULL REFERENCES packages,
    path    TEXT NOT NULL REFERENCES pool_files,
    PRIMARY KEY (package, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX package_files_by_path ON package_files (path);

-- What each index of each suite lists now: one version of a name.
CREATE TABLE entries (
    suite   TEXT NOT NULL,
    section TEXT NOT NULL,              -- main/binary-amd64, main/source …
    name    TEXT NOT NULL,
    package INTEGER NOT NULL REFERENCES packages,
    PRIMARY KEY (suite, section, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_by_package ON entries (package);
CREATE INDEX entries_by_name ON entries (suite, name);

CREATE TABLE generations (
    suite            TEXT NOT NULL,
    number           INTEGER NOT NULL,
    at               TEXT NOT NULL,     -- the Date of its Release
    reason           TEXT NOT NULL,
    settings         TEXT NOT NULL,     -- digest of the configuration that it was made with
    inrelease_sha256 TEXT NOT NULL,
    files            TEXT NOT NULL,     -- the index files that its Release lists, JSON
    PRIMARY KEY (suite, number)
) STRICT, WITHOUT ROWID;

-- What each generation changed: history, and the way back.
CREATE TABLE generation_changes (
    suite       TEXT NOT NULL,
    number      INTEGER NOT NULL,
    section     TEXT NOT NULL,
    name        TEXT NOT NULL,
    old_package INTEGER,
    new_package INTEGER,
    upload      INTEGER,
    PRIMARY KEY (suite, number, section, name)
) STRICT, WITHOUT ROWID;

-- The indexes' bytes in blocks (see blocks.py); all of it can be made anew from entries and packages.
CREATE TABLE blocks (
    id   INTEGER PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT;
-- A row for each form: sqlite reads a blob through all the blobs before it in its row.
CREATE TABLE block_forms (
    block    INTEGER NOT NULL REFERENCES blocks,
    form     TEXT NOT NULL,             -- raw, gz, xz or zst
    unpadded INTEGER NOT NULL,          -- of xz, else 0
    data     BLOB NOT NULL,
    PRIMARY KEY (block, form)
) STRICT;
CREATE TABLE block_runs (
    suite   TEXT NOT NULL,
    section TEXT NOT NULL,
    first   TEXT NOT NULL,
    block   INTEGER NOT NULL UNIQUE REFERENCES blocks,
    PRIMARY KEY (suite, section, first)
) STRICT, WITHOUT ROWID;
"""

_QUICK_BLOCKS = """
-- 1: it was compressed in haste, and is compressed again when nobody waits.
ALTER TABLE blocks ADD COLUMN quick INTEGER NOT NULL DEFAULT 0;
CREATE INDEX blocks_quick ON blocks (id) WHERE quick;
"""

_DELAYED = """
ALTER TABLE uploads ADD COLUMN delay INTEGER;       -- days, where it was sent to a folder for delayed uploads
ALTER TABLE uploads ADD COLUMN due_at TEXT;         -- from the claim on
ALTER TABLE uploads ADD COLUMN delayed INTEGER NOT NULL DEFAULT 0;  -- 1 until it is due
CREATE INDEX uploads_delayed ON uploads (due_at) WHERE delayed = 1 AND finished_at IS NULL;
"""

#: Step n brings user_version from n to n + 1.
MIGRATIONS: tuple[str, ...] = (_FIRST, _QUICK_BLOCKS, _DELAYED)
