"""What a .commands file asks for is done here: uploads of its sender that wait are cancelled, or get another day.

Rules:

* All in one journal transaction: each upload it names is cancelled or rescheduled, and the file counts as taken; or,
  where one of them cannot be, none is, and the file is rejected with every reason.
* Own is what the same key has signed: each .changes of the upload, as the checks found it. One that is still being
  checked is waited for (:class:`~incomingd.errors.Retry`). Of one that has not been taken yet, since it is incomplete
  or settles, the .changes that lie there are verified for this; without one it is nobody's, and nobody's to remove.
* What came after the commands did is not meant by them.
* A file that was taken once is refused from then on, also where it was rejected. After a day its signature is too old.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

from incomingd import codec, rules
from incomingd.errors import Retry
from incomingd.intake.withdrawal import take_out
from incomingd.journal import Journal
from incomingd.journal.control import Control
from incomingd.journal.delays import Delays
from incomingd.journal.uploads import Uploads
from incomingd.model import CheckReport, Commands, Order, Problem, Published, Upload, UploadKind
from incomingd.places import Places
from incomingd.states import Stage

#: A signature is believed for a day, and may be dated a day ahead.
_REMEMBERED = timedelta(days=3)
_BUSY = (Stage.CLAIMED, Stage.CHECKING)

#: Who signed each .changes of an upload that lies in incoming; None is nobody that is trusted.
Signers = Callable[[Upload], Collection[str | None]]
#: The same of several uploads, by their ids.
_Vouched = Mapping[int, Collection[str | None]]


def obey(
    journal: Journal, places: Places, asked: Upload, report: CheckReport, at: datetime, signers: Signers
) -> tuple[Upload, list[Upload]]:
    """Do what the checked commands of ``asked`` say; ``asked`` as it has ended, and those that got another day.

    Raises ``Retry``.
    """
    uploads, control, commands = Uploads(journal), Control(journal), report.commands
    if commands is None:
        raise ValueError(f"{asked}: the checks found no problem, and no commands")
    # It takes gpg's time: not inside the transaction, for which all others wait.
    vouched = {one.id: signers(one) for one in uploads.open() if _is_in_incoming(one, asked, commands)}
    with journal.writing():
        if not control.note_commands(commands.digest, at, at - _REMEMBERED):
            problem = rules.COMMANDS_REPEATED.problem("the same commands with the same signature were taken before")
            return uploads.reject(asked, [problem], at, "rejected: it was taken before"), []
        targets, problems = _targets(uploads.open(), asked, commands, vouched)
        if problems:
            return uploads.reject(asked, problems, at, f"rejected: {len(problems)} problem(s); nothing was done"), []
        moved = [
            Delays(journal).reschedule(upload, at + timedelta(days=days), at, _new_day(at, days, asked))
            for upload, days in targets
            if days is not None
        ]
        cancelled = [upload for upload, days in targets if days is None]
        for upload in cancelled:
            _cancel(uploads, control, places, upload, asked, at)
        done = [f"cancelled {upload}" for upload in cancelled]
        done += [f"delayed {upload} until {codec.timestamp(upload.due_at)}" for upload in moved if upload.due_at]
        # Through the same stages as all others, and nobody sees them.
        asked = uploads.queue(asked, report, at, f"signed by {commands.signed_by}")
        asked = uploads.move(asked, Stage.PUBLISHING, at)
        nothing = Published(suites={}, files=())
        return uploads.publish(asked, nothing, at, ", ".join(done), already_published=False), moved


def _new_day(at: datetime, days: int, asked: Upload) -> str:
    until = codec.timestamp(at + timedelta(days=days)) if days else "now"
    return f"its sender delayed it until {until} by {asked}"


def _cancel(uploads: Uploads, control: Control, places: Places, upload: Upload, asked: Upload, at: datetime) -> None:
    if upload.stage is Stage.RECEIVING:
        try:
            take_out(places, upload)
        except OSError as error:
            raise Retry(f"{upload} cannot be taken out of incoming: {error.strerror or error}") from error
    found = f"its sender cancelled it by {asked}"
    uploads.reject(upload, [rules.UPLOAD_CANCELLED.problem(found)], at, found, target=Stage.CANCELLED)
    control.note_cancelled(upload.id)


def _targets(
    waiting: Iterable[Upload], asked: Upload, commands: Commands, vouched: _Vouched
) -> tuple[list[tuple[Upload, int | None]], list[Problem]]:
    """The uploads that are meant, each with its days where it is to be rescheduled; and what stands against it."""
    mine = [upload for upload in waiting if _before(upload, asked)]
    targets: dict[int, tuple[Upload, int | None]] = {}
    problems = []
    for order in commands.orders:
        found = [upload for upload in mine if _is_called(upload, order)]
        if any(upload.stage in _BUSY for upload in found):
            raise Retry(f"{order.name} is still being checked, and whose it is shows then")
        own = [upload for upload in found if _is_own(upload, commands.signed_by, vouched) and _may(upload, order)]
        if not own:
            # Whether it is there at all is nobody else's business.
            what = "waits to be published" if order.days is None else "is delayed"
            reason = f"no upload that {commands.signed_by} has signed is called {order.name} and {what}"
            problems.append(rules.COMMANDS_REFUSED.problem(reason, file=order.name))
        for upload in own:
            if targets.setdefault(upload.id, (upload, order.days))[1] != order.days:
                reason = f"{upload.name} is named by two commands that contradict each other"
                problems.append(rules.COMMANDS_REFUSED.problem(reason, file=order.name))
    return list(targets.values()), problems


def _is_in_incoming(upload: Upload, asked: Upload, commands: Commands) -> bool:
    return (
        upload.stage is Stage.RECEIVING
        and _before(upload, asked)
        and any(_is_called(upload, order) for order in commands.orders)
    )


def _before(upload: Upload, asked: Upload) -> bool:
    """What came after the commands did is not meant by them."""
    if upload.kind not in (UploadKind.DIRECTORY, UploadKind.FLAT) or upload.queue != asked.queue:
        return False
    # In incoming it has no number yet, and one that was delayed, or stood aside, may have got a later one since.
    if upload.sequence is None or asked.sequence is None or upload.due_at is not None or upload.tries:
        return upload.id < asked.id
    return upload.sequence < asked.sequence


def _is_called(upload: Upload, order: Order) -> bool:
    """By its own name, or by one of its .changes; those of a directory are known once it was checked."""
    if order.within is not None and order.within != upload.delay:
        return False
    if order.name == upload.name or any(changes.file == order.name for changes in upload.changes):
        return True
    return upload.kind is UploadKind.FLAT and order.name == f"{upload.name}.changes"


def _is_own(upload: Upload, signer: str, vouched: _Vouched) -> bool:
    if upload.stage is Stage.RECEIVING:
        signers = vouched.get(upload.id, ())
    else:
        signers = [changes.signed_by for changes in upload.changes]
    return bool(signers) and all(one == signer for one in signers)


def _may(upload: Upload, order: Order) -> bool:
    if order.days is None:
        return upload.stage in (Stage.QUEUED, Stage.RECEIVING)
    return upload.stage is Stage.QUEUED and upload.delayed
