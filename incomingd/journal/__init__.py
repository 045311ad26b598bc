"""The journal: what the daemon knows, in one SQLite database, and the only SQL there is.

Rules:

* WAL and ``synchronous=FULL``: what was committed is there after a power cut, unless the mover said that it need not.
* One writer at a time. :meth:`Journal.writing` is a transaction; it nests, and the outermost commits.
* Readers never wait for the writer: each thread has a connection of its own for queries.
* The queue *is* the journal. Nothing that matters lives in memory only.

sqlite's own errors stop here: a full disk or a lock that does not come free is a :class:`~incomingd.errors.Retry`; a
file that is damaged or not ours is a :class:`~incomingd.errors.Halt`.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from incomingd.errors import Halt, Retry
from incomingd.journal.schema import APPLICATION_ID, MIGRATIONS

#: The SQLite results that are the environment's doing; every other DatabaseError means a damaged file.
ENVIRONMENT = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
)
#: What SQLite's log of changes (WAL) is cut down to, in bytes, after a transaction that needed more.
_LOG_SIZE = 16 << 20
#: The log is carried over into the database at leisure (:meth:`Journal.settle`), or when it has so many pages (32 MB).
#: SQLite's own 1,000 make somebody wait for the disk with every 4 MB, three times while 150 index blocks are stored.
_LOG_PAGES = 8192


class Journal:
    """An open journal. The rooms of it (:mod:`.uploads`, :mod:`.catalogue` …) are given one of these."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open ``path`` and bring it to the newest form; it is made where it is not there, unless ``read_only``."""
        self.path = path
        self._read_only = read_only
        self._own = threading.local()
        self._writer = threading.RLock()
        self._writes: sqlite3.Connection | None = None
        self._in_transaction = False
        self._open: list[sqlite3.Connection] = []
        with translated(path):
            self._prepare()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._connect()
        return connection

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self._read_only else "rwc"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=30,
            check_same_thread=False,  # closed by the thread that closes the journal
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-4096")
        # The log of changes grows as large as the largest transaction, an import's, and would stay so.
        connection.execute(f"PRAGMA journal_size_limit={_LOG_SIZE}")
        connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        # Debian's sqlite writes zeros over all that is deleted: of 300 index blocks as many bytes as the new ones have.
        connection.execute("PRAGMA secure_delete=OFF")
        self._open.append(connection)
        return connection

    def _prepare(self) -> None:
        connection = self._connection()
        version = self._check_ours(connection)
        if self._read_only:
            return
        connection.execute("PRAGMA journal_mode=WAL")
        # A table that is dropped and made again under its name is pointed to all the time; else a DROP would look for
        # every row that points to it.
        connection.execute("PRAGMA foreign_keys=OFF")
        for number in range(version, len(MIGRATIONS)):
            # executescript commits what is open, so the transaction stands in the script itself.
            connection.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]}"
                f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={number + 1}; COMMIT;"
            )
        connection.execute("PRAGMA foreign_keys=ON")

    def _check_ours(self, connection: sqlite3.Connection) -> int:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if application != APPLICATION_ID and (tables or application or self._read_only):
            raise Halt(f"{self.path}: this is not a journal of incomingd (application_id {application:#x})")
        if version > len(MIGRATIONS) or (self._read_only and version < len(MIGRATIONS)):
            raise Halt(
                f"{self.path}: the journal has form {version}, this incomingd knows form {len(MIGRATIONS)}; "
                "run the version of incomingd that last wrote it, or a newer one"
            )
        return version

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction; on the way out it is committed and on the disk, or, after an exception, undone.

        One that is not ``durable`` is on the disk with the next one that is: what a power cut takes back must be what
        recovery does again. Inside another transaction it is as that one.
        """
        with self._writer, translated(self.path):
            if self._in_transaction:
                yield self._connection()
                return
            reads = self._connection()
            connection = self._own.connection = self._writing_connection()
            self._in_transaction = True
            try:
                # With NORMAL no commit waits for the disk; the log of changes is one file, synced by the next FULL.
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                self._in_transaction = False
                self._own.connection = reads
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _writing_connection(self) -> sqlite3.Connection:
        """One for all threads: sqlite forgets what a connection has read as soon as another one writes."""
        if self._writes is None:
            self._writes = self._connect()
        return self._writes

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for queries; inside :meth:`writing` it sees what is not committed yet."""
        with translated(self.path):
            yield self._connection()

    @contextlib.contextmanager
    def beside(self, path: Path, name: str) -> Iterator[None]:
        """While this lasts, :meth:`writing` can read the database ``path`` as ``name``, and no other thread can write.

        Not to be called inside :meth:`writing`, since sqlite cannot let go of a database in a transaction.
        """
        with self._writer, translated(path):
            connection = self._writing_connection()
            connection.execute(f"ATTACH ? AS {name}", (f"{path.absolute().as_uri()}?mode=ro",))
            try:
                yield
            finally:
                connection.execute(f"DETACH {name}")

    def settle(self) -> None:
        """Carry the log of changes over into the database: it is long by now, and nobody waits. Readers go on.

        Raises ``Retry`` and ``Halt``.
        """
        with self._writer, translated(self.path):
            self._writing_connection().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close every connection. No thread may use the journal any more."""
        for connection in self._open:
            connection.close()
        self._open.clear()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn sqlite's errors with the database ``path`` into ``Retry`` and ``Halt``; bugs come out as they are."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a bug, not the disk's doing
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF == sqlite3.SQLITE_ERROR:
            raise  # wrong SQL or misuse: a bug
        if code & 0xFF in ENVIRONMENT:
            raise Retry(f"{path}: the journal cannot be used now: {error}") from error
        raise Halt(f"{path}: the journal is damaged: {error}; restore it, or see docs/operators.md") from error
