"""Sealing: the daemon's own copy of a claimed upload. From here on nobody else can change a byte of it.

A claim is a rename, not a wall: a writer with an open descriptor, a link or a working directory inside goes on
writing after it. So every file is copied (or, where it already is the daemon's alone, renamed) into ``state/sealed/ID``
and hashed on the way; only sealed bytes are checked and published.

It is done in two steps, so that nothing large is copied for those who may upload nothing. First the texts: each
.changes, or the one .commands file. Then, if the upload is authorised, what the .changes list, each file at most to its
listed size; of packages without a .changes, the packages. What no .changes lists is never copied.

Rules: regular files only, opened without following links, and only those of the upload's owner (:mod:`.ownership`);
hidden names (rsync's and sftp's temporaries, also directories of them) are left out; each step tells all that is wrong
in one pass; what is needed is set apart on the disk before it is copied (:mod:`.room`). What the sealed directory holds
and the claim does not was renamed by an earlier try: sealing can be done twice. A step that fails removes what
it copied.

Fails with :class:`~incomingd.errors.Retry` if the machine is at fault: no space, no right, an I/O error of the
daemon's own files. Fails with :class:`~incomingd.errors.Obstructed` if one of the upload's files cannot be read now.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from incomingd import fsio, rules
from incomingd.errors import Retry
from incomingd.intake import ownership
from incomingd.intake.claim import move_to_claims, opened
from incomingd.intake.claimed import Claimed, Sealing, machines
from incomingd.model import UPLOAD_NAME, Problem, Seal, Upload, plain


def seal_texts(sealing: Sealing, limit: int) -> Seal:
    """Seal each .changes, or the .commands file, of at most ``limit`` bytes each. May be done twice."""
    claimed = sealing.claimed
    sealing.problems += _name_problems(claimed.upload)
    with machines(claimed.sealed):
        sealing.is_first = bool(fsio.make_directories(claimed.sealed, 0o700))
        if not os.path.lexists(claimed.claim):
            _take_up_again(claimed)
            if not os.path.lexists(claimed.claim) and not any(claimed.sealed.iterdir()):
                lost = f"nothing is left of {plain(claimed.upload.name)} in {claimed.claim}"
                sealing.problems.append(rules.UPLOAD_LOST.problem(lost))
                return sealing.result()
    sealing.texts(limit)
    return sealing.result()


def is_bare(claimed: Claimed, texts: Seal) -> bool:
    """True if the upload has no .changes, its queue allows that, and nothing was wrong so far."""
    wrong = any(problem.code != rules.BAD_UPLOAD_NAME.code for problem in texts.problems)
    return claimed.queue.allow_bare_debs and not texts.files and not wrong


def seal_listed(sealing: Sealing, listed: Mapping[str, int]) -> Seal:
    """After :func:`seal_texts`: seal what the .changes list, by name and size. May be done twice."""
    claimed = sealing.claimed
    sealing.listed(listed)
    missing = listed.keys() - sealing.files.keys()
    absent = () if claimed.members is None else tuple(_foreign_in_incoming(claimed, missing))
    return replace(sealing.result(), absent=absent)


def seal_bare(sealing: Sealing) -> Seal:
    """After :func:`seal_texts`: seal packages that came without a .changes. May be done twice."""
    sealing.bare()
    return sealing.result()


def _name_problems(upload: Upload) -> Iterator[Problem]:
    if not UPLOAD_NAME.fullmatch(upload.name):
        yield rules.BAD_UPLOAD_NAME.problem(
            f'"{plain(upload.name)}" is not a letter or digit and then up to 199 letters, digits and . _ + ~ -'
        )


def _take_up_again(claimed: Claimed) -> None:
    """A claim that stopped between its journal row and its rename, and could not be mended at start-up."""
    upload, queue = claimed.upload, claimed.queue
    try:
        move_to_claims(claimed.places, upload, queue, claimed.members)
    except FileNotFoundError:
        return  # neither here nor there
    except OSError as error:
        raise Retry(f"{plain(upload.name)} cannot be moved out of {queue.path}: {error.strerror or error}") from error


def _foreign_in_incoming(claimed: Claimed, missing: Collection[str]) -> Iterator[Problem]:
    """What a flat upload lists, has not brought, and another account has in incoming: whose it is."""
    queue, uid = claimed.queue, claimed.upload.uid
    if uid is None:
        return
    with contextlib.suppress(OSError), opened(queue) as fd:
        mine = ownership.of_flat(os.fstat(fd), uid)
        for name in sorted(missing):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if not mine.allows(found):
                    whose = f"the file in {queue.path} {mine.refusal(found.st_uid)}"
                    yield rules.FOREIGN_FILE.problem(whose, file=name)
