"""What a sender's machine needs: a set of packages, the way to the incoming folder, and the following of its status.

Rules:

* It imports nothing but itself and Python's standard library, and runs on Python 3.8: ``incomingctl submit`` is made of
  it, and so is the one file that old CI machines run (:mod:`.bundle`).
* Programs of the machine do the rest: gpg signs, ssh and rsync send, dpkg-deb reads packages if it is installed.
* What goes wrong is a :class:`~incomingd.client.errors.ClientError` with a sentence and an exit status.
"""
