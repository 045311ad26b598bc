"""Every rename, sync, no-follow open and durable write that there is.

Rules:

* A name from an upload is opened relative to its directory's descriptor, with ``O_NOFOLLOW | O_NONBLOCK``, and is
  used only when it is a regular file: a link is never followed and a FIFO never blocks.
* *Durable* means: after the call a power cut leaves the new content under the name, or (had it come earlier) the old
  one, never a part. It is temp, write, fsync, rename, fsync of the directory.
* *Atomic* is the same without the syncs: for what is derived from the journal and can be written anew.

Failures are ``OSError``; a missing place on the disk and a missing right are the environment's, and the caller says so.
"""

from incomingd.fsio.naming import (
    become_owner,
    link,
    make_directories,
    place,
    point,
    rename,
    rename_durable,
    rename_new,
    switch,
    take_out,
    write_twice,
)
from incomingd.fsio.reading import (
    ForeignFileError,
    NotRegularError,
    allocated,
    directory,
    has_writer,
    holds,
    lock_holder,
    points_to,
    read_regular,
    regular,
)
from incomingd.fsio.removing import remove, remove_empty, remove_tree
from incomingd.fsio.taking import UnreadError, copy_file, hash_file, own_file, seal_file, take_copy
from incomingd.fsio.writing import (
    TEMPORARY,
    new_file,
    sync,
    sync_file_systems,
    write_atomic,
    write_durable,
    write_new,
)

__all__ = [
    "TEMPORARY",
    "ForeignFileError",
    "NotRegularError",
    "UnreadError",
    "allocated",
    "become_owner",
    "copy_file",
    "directory",
    "has_writer",
    "hash_file",
    "holds",
    "link",
    "lock_holder",
    "make_directories",
    "new_file",
    "own_file",
    "place",
    "point",
    "points_to",
    "read_regular",
    "regular",
    "remove",
    "remove_empty",
    "remove_tree",
    "rename",
    "rename_durable",
    "rename_new",
    "seal_file",
    "switch",
    "sync",
    "sync_file_systems",
    "take_copy",
    "take_out",
    "write_atomic",
    "write_durable",
    "write_new",
    "write_twice",
]
