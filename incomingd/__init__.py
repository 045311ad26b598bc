"""incomingd: takes in Debian package uploads and publishes them, one after the other, into a signed APT repository.

Read it in the order in which an upload flows:

1. the words: :mod:`~incomingd.model`, :mod:`~incomingd.states`, :mod:`~incomingd.errors`, :mod:`~incomingd.config`,
   :mod:`~incomingd.rights`
2. the ground: :mod:`~incomingd.fsio` (every rename and sync), :mod:`~incomingd.journal` (every SQL statement),
   :mod:`~incomingd.sandbox` (everything that limits a process)
3. the rooms, which know nothing of each other: :mod:`~incomingd.intake`, :mod:`~incomingd.verify`,
   :mod:`~incomingd.publish`, :mod:`~incomingd.report`
4. what reads existing packages for a bulk load, with the eyes of verify and the words of publish:
   :mod:`~incomingd.importing`
5. the way through them: :mod:`~incomingd.pipeline` and, at start-up, :mod:`~incomingd.recovery`
6. what a sender's machine needs, which stands alone: :mod:`~incomingd.client`
7. the edges: :mod:`~incomingd.daemon` and :mod:`~incomingd.cli`

Imports go up this list only.
"""

__version__ = "0.1.0"
