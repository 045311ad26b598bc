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

_OWNERS = """
-- Whose an upload is: the owner of its directory, or of its .changes, and that account's name at the time.
ALTER TABLE uploads ADD COLUMN uid INTEGER;
ALTER TABLE uploads ADD COLUMN account TEXT;
"""

_NAMES = """
-- A name that is free again gets other content: the row of the old one stays, for the history, as lost. sqlite cannot
-- drop the UNIQUE of a table, so packages is written again, with who signed for each: a copy counts as by that key.
CREATE TABLE packages_again (
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
    signed_by      TEXT,                -- the primary key; NULL: unsigned, or imported
    signing_key    TEXT,                -- the key or subkey that made the signature
    lost           INTEGER NOT NULL DEFAULT 0,  -- 1: its name, or that of one of its files, has other content since
    stanza         BLOB NOT NULL        -- as in its index, with the empty line behind it
) STRICT;
INSERT INTO packages_again
    SELECT p.id, p.kind, p.name, p.version, p.architecture, p.source, p.source_version, p.component, p.upload,
        p.added_at,
        (SELECT CASE WHEN count(DISTINCT coalesce(json_extract(c.value, '$.signed_by'), '')) = 1
            THEN min(json_extract(c.value, '$.signed_by')) END FROM uploads u, json_each(u.changes) c
            WHERE u.id = p.upload AND json_extract(c.value, '$.source') = p.source),
        NULL, 0, p.stanza
    FROM packages p;
DROP TABLE packages;
ALTER TABLE packages_again RENAME TO packages;
CREATE UNIQUE INDEX packages_by_key ON packages (kind, name, version, architecture) WHERE NOT lost;
CREATE INDEX packages_by_source ON packages (source, source_version);

-- 1: an operator wants its name back; it leaves the pool before the grace time is over.
ALTER TABLE pool_files ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
CREATE INDEX pool_files_forgotten ON pool_files (unused_at) WHERE forgotten AND gone_at IS NULL;
"""

_IDENTITIES = """
-- What a replay is known by: signer, time of the signature and signed text. NULL: published before that was kept.
ALTER TABLE published_changes ADD COLUMN identity TEXT;
CREATE UNIQUE INDEX published_changes_by_identity ON published_changes (identity) WHERE identity IS NOT NULL;
CREATE INDEX published_changes_without ON published_changes (file) WHERE identity IS NULL;
"""

_KEPT_INDEXES = """
-- What lies under by-hash. A superseded index stays for the newest generations, and for a time after that.
CREATE TABLE kept_indexes (
    suite         TEXT NOT NULL,
    folder        TEXT NOT NULL,            -- below the suite's: main/binary-amd64
    sha256        TEXT NOT NULL,
    sha512        TEXT,                     -- if a Release lists it
    size          INTEGER NOT NULL,         -- as allocated on the disk
    superseded_by INTEGER,                  -- the first generation that does not list it; NULL: the current one does
    superseded_at TEXT,
    grace_only    INTEGER NOT NULL DEFAULT 0,   -- 1: none of the newest generations lists it
    PRIMARY KEY (suite, folder, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_indexes_superseded ON kept_indexes (suite, superseded_by) WHERE superseded_by IS NOT NULL;
CREATE INDEX kept_indexes_grace_only ON kept_indexes (superseded_at) WHERE grace_only = 1;

-- Sums of what would take long to add up, kept true by the triggers below.
CREATE TABLE space (
    kind  TEXT PRIMARY KEY,             -- pool; indexes: all under by-hash; grace_only: of these
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO space SELECT 'pool', ifnull(sum(size), 0) FROM pool_files WHERE gone_at IS NULL;
INSERT INTO space VALUES ('indexes', 0), ('grace_only', 0);
CREATE TRIGGER pool_file_added AFTER INSERT ON pool_files BEGIN
    UPDATE space SET bytes = bytes + new.size * (new.gone_at IS NULL) WHERE kind = 'pool';
END;
CREATE TRIGGER pool_file_changed AFTER UPDATE OF size, gone_at ON pool_files BEGIN
    UPDATE space SET bytes = bytes + new.size * (new.gone_at IS NULL) - old.size * (old.gone_at IS NULL)
        WHERE kind = 'pool';
END;
CREATE TRIGGER pool_file_removed AFTER DELETE ON pool_files BEGIN
    UPDATE space SET bytes = bytes - old.size * (old.gone_at IS NULL) WHERE kind = 'pool';
END;
CREATE TRIGGER kept_index_added AFTER INSERT ON kept_indexes BEGIN
    UPDATE space SET bytes = bytes + new.size WHERE kind = 'indexes';
    UPDATE space SET bytes = bytes + new.size * new.grace_only WHERE kind = 'grace_only';
END;
CREATE TRIGGER kept_index_changed AFTER UPDATE OF size, grace_only ON kept_indexes BEGIN
    UPDATE space SET bytes = bytes + new.size - old.size WHERE kind = 'indexes';
    UPDATE space SET bytes = bytes + new.size * new.grace_only - old.size * old.grace_only WHERE kind = 'grace_only';
END;
CREATE TRIGGER kept_index_removed AFTER DELETE ON kept_indexes BEGIN
    UPDATE space SET bytes = bytes - old.size WHERE kind = 'indexes';
    UPDATE space SET bytes = bytes - old.size * old.grace_only WHERE kind = 'grace_only';
END;
"""

_UPLOAD_NAMES = """
-- The user id whose the upload's name is (names.py); NULL: not known, the name is free.
ALTER TABLE uploads ADD COLUMN holder INTEGER;
ALTER TABLE uploads ADD COLUMN nameless INTEGER NOT NULL DEFAULT 0;  -- 1: its name is another account's
ALTER TABLE uploads ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;     -- the size of its files at the claim
DROP INDEX uploads_by_name;
CREATE INDEX uploads_by_name ON uploads (name, id) WHERE nameless = 0;
-- How much of each account is on its way, read from the index alone.
CREATE INDEX uploads_in_flight ON uploads (uid, bytes) WHERE finished_at IS NULL AND sequence IS NOT NULL;
"""

_ASIDE = """
-- An upload that stands aside: for which cause, since when, and how often it was tried for that.
ALTER TABLE uploads ADD COLUMN aside TEXT;
ALTER TABLE uploads ADD COLUMN aside_since TEXT;
ALTER TABLE uploads ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE uploads ADD COLUMN holds TEXT NOT NULL DEFAULT '';  -- the sources whose later uploads wait, JSON
ALTER TABLE uploads ADD COLUMN stood_at INTEGER;    -- the number that it had; it stays when it has returned
CREATE INDEX uploads_aside ON uploads (stood_at) WHERE stood_at IS NOT NULL AND finished_at IS NULL;
"""

_KEPT = """
ALTER TABLE uploads ADD COLUMN kept INTEGER;        -- bytes that are kept of it in state/rejected; NULL: none
CREATE INDEX uploads_kept ON uploads (uid, finished_at, kept) WHERE kept IS NOT NULL;
"""

_SUPERSEDED = """
ALTER TABLE uploads ADD COLUMN superseded_by TEXT;  -- the newer version that its own generation lists, JSON
"""

#: Step n brings user_version from n to n + 1. No step is watched for rows that point to nothing: a table may be dropped
#: and made again under its name.
MIGRATIONS: tuple[str, ...] = (
    _FIRST,
    _QUICK_BLOCKS,
    _DELAYED,
    _OWNERS,
    _NAMES,
    _IDENTITIES,
    _KEPT_INDEXES,
    _UPLOAD_NAMES,
    _ASIDE,
    _KEPT,
    _SUPERSEDED,
)
