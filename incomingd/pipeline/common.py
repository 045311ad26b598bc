"""What the loops of the pipeline share: the journal's rooms, health, status files, and how an upload ends."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime

from incomingd.config import Config
from incomingd.errors import Retry
from incomingd.intake.accounts import Failures
from incomingd.intake.cleanup import remove_published
from incomingd.intake.room import Room
from incomingd.journal import Journal
from incomingd.journal.control import Control
from incomingd.journal.delays import Delays
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload
from incomingd.pipeline.keeping import Keeping
from incomingd.places import Places
from incomingd.report.health import HealthState
from incomingd.report.heartbeat import Heartbeat
from incomingd.report.reporter import Reporter
from incomingd.states import Stage

log = logging.getLogger(__name__)

#: Published uploads that are cleared away at a time: a publish that comes up waits for no more (some 20 ms).
_DISCARD_AT_ONCE = 20


class Common:
    """One for each pipeline. ``config`` and ``places`` are replaced between two publishes, and nowhere else."""

    def __init__(
        self,
        config: Config,
        clock: Callable[[], datetime],
        heartbeat: Heartbeat,
        is_switched: Callable[[], bool],
        on_bug: Callable[[str, BaseException], None],
    ) -> None:
        """``is_switched`` says whether clients see all that is committed; ``on_bug`` is told what cannot go on."""
        self.clock = clock
        self.heartbeat = heartbeat
        self.on_bug = on_bug
        self.config = config
        self.places = Places(config)
        self.journal = Journal(self.places.journal)
        self.uploads = Uploads(self.journal)
        self.delays = Delays(self.journal)
        self.control = Control(self.journal)
        self.health_state = HealthState(started_at=clock())
        # Held from a commit to its switch, and while anybody tells what the journal says: nobody may see SUCCEEDED
        # before an apt client sees the package.
        self.visible = threading.Lock()
        self.reporter = Reporter(self.places, self.uploads, self.health_state, self.visible, is_switched)
        self.stopping = threading.Event()
        self.rejections = 0
        self.failures = Failures()
        self.room = Room()
        self.keeping = Keeping(self.journal, lambda: self.places, clock, self.room)
        self._published: deque[Upload] = deque()  # what these brought is still there

    def take_up(self, config: Config) -> None:
        """From now on this configuration holds."""
        self.config, self.places = config, Places(config)

    def close(self) -> None:
        """Clear all away that has ended. No other thread may be at work."""
        self.keeping.close()
        while self.discard_some():
            pass

    def tell(self, *uploads: Upload) -> None:
        """These have moved: their status files are to be written."""
        self.reporter.tell(uploads)

    def ended(self, uploads: Iterable[Upload]) -> None:
        """Tell first; what an upload brought is cleared away after that, and by recovery where that fails."""
        ended = list(uploads)
        for upload in ended:
            log.info("%s: %s", upload, upload.log[-1].message)
            for problem in upload.problems:
                log.info("%s: %s: %s [%s]", upload, problem.file or "the upload", problem.message, problem.code)
            self.rejections += upload.stage is not Stage.PUBLISHED
            self.failures.note(upload)
        self.tell(*ended)
        for upload in ended:
            if upload.stage is Stage.PUBLISHED:
                self._published.append(upload)
            else:
                self.keeping.keep(upload)

    def discard_some(self) -> bool:
        """Remove what some published uploads brought and no longer need; True where there were any.

        To remove what 300 brought takes a quarter of a second of a core, which those that are on their way need more.
        """
        some = [self._published.popleft() for _ in range(min(len(self._published), _DISCARD_AT_ONCE))]
        for upload in some:
            remove_published(self.places, upload, self.config.queue(upload.queue))
        return bool(some)

    def are_cancelled(self, uploads: Iterable[Upload]) -> bool:
        """True where an operator has cancelled one of them under the mover."""
        return any(upload.stage is Stage.CANCELLED for upload in self.uploads.many(one.id for one in uploads))

    def line(self) -> str:
        """What the service manager shows: how it is, and how many uploads are taken in and not published yet."""
        try:
            on_the_way, delayed = self.uploads.waiting()
        except Retry:  # the reporter has told why
            return self.health_state.health().line()
        waiting = f"{on_the_way} in the queue" + (f", {delayed} delayed" if delayed else "")
        return f"{self.health_state.health().line()}; {waiting}"
