"""What a .commands file asks for is done here: uploads of its sender that wait are cancelled.

Rules:

* All in one journal transaction: each upload it names is cancelled, and the file counts as taken; or, where one of
  them cannot be, none is, and the file is rejected with every reason.
* Own is what the same key has signed, as the checks found it: each .changes of the upload. What is still being checked
  is waited for (:class:`~incomingd.errors.Retry`); what has not been taken yet is nobody's.
* A file that was taken once is refused from then on, also where it was rejected. After a day its signature is too old.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from incomingd import rules
from incomingd.errors import Retry
from incomingd.journal import Journal
from incomingd.journal.control import Control
from incomingd.journal.uploads import Uploads
from incomingd.model import CheckReport, Commands, Problem, Published, Upload, UploadKind
from incomingd.states import Stage

#: A signature is believed for a day, and may be dated a day ahead.
_REMEMBERED = timedelta(days=3)
_BUSY = (Stage.CLAIMED, Stage.CHECKING)


def obey(journal: Journal, asked: Upload, report: CheckReport, at: datetime) -> Upload:
    """Do what the checked commands of ``asked`` say; ``asked`` as it has ended. Raises ``Retry``."""
    uploads, control, commands = Uploads(journal), Control(journal), report.commands
    if commands is None:
        raise ValueError(f"{asked}: the checks found no problem, and no commands")
    with journal.writing():
        if not control.note_commands(commands.digest, at, at - _REMEMBERED):
            problem = rules.COMMANDS_REPEATED.problem("the same commands with the same signature were taken before")
            return uploads.reject(asked, [problem], at, "rejected: it was taken before")
        targets, problems = _targets(uploads.open(), asked, commands)
        if problems:
            return uploads.reject(asked, problems, at, f"rejected: {len(problems)} problem(s); nothing was cancelled")
        for target in targets:
            found = f"its sender cancelled it by {asked}"
            uploads.reject(target, [rules.UPLOAD_CANCELLED.problem(found)], at, found, target=Stage.CANCELLED)
            control.note_cancelled(target.id)
        # Through the same stages as all others, and nobody sees them.
        asked = uploads.queue(asked, report, at, f"signed by {commands.signed_by}")
        asked = uploads.move(asked, Stage.PUBLISHING, at)
        said = f"cancelled {', '.join(map(str, targets))}"
        return uploads.publish(asked, Published(suites={}, files=()), at, said, already_published=False)


def _targets(waiting: Iterable[Upload], asked: Upload, commands: Commands) -> tuple[list[Upload], list[Problem]]:
    """The uploads that are to be cancelled, and what stands against it."""
    mine = [upload for upload in waiting if _before(upload, asked)]
    targets: list[Upload] = []
    problems = []
    for name in commands.cancel:
        found = [upload for upload in mine if _is_called(upload, name)]
        if any(upload.stage in _BUSY for upload in found):
            raise Retry(f"{name} is still being checked, and whose it is shows then")
        found = [upload for upload in found if upload.stage is Stage.QUEUED]
        own = [upload for upload in found if _is_own(upload, commands.signed_by)]
        if own:
            targets += [upload for upload in own if upload not in targets]
        else:
            # Whether it is there at all is nobody else's business.
            reason = f"no upload that {commands.signed_by} has signed is called {name} and waits to be published"
            problems.append(rules.COMMANDS_REFUSED.problem(reason, file=name))
    return targets, problems


def _before(upload: Upload, asked: Upload) -> bool:
    """What came after the commands did is not meant by them."""
    return (
        upload.kind in (UploadKind.DIRECTORY, UploadKind.FLAT)
        and upload.queue == asked.queue
        and upload.sequence is not None
        and asked.sequence is not None
        and upload.sequence < asked.sequence
    )


def _is_called(upload: Upload, name: str) -> bool:
    """By its own name, or by one of its .changes; those of a directory are known once it was checked."""
    if name == upload.name or any(changes.file == name for changes in upload.changes):
        return True
    return upload.kind is UploadKind.FLAT and name == f"{upload.name}.changes"


def _is_own(upload: Upload, signer: str) -> bool:
    return bool(upload.changes) and all(changes.signed_by == signer for changes in upload.changes)
