"""Checks sealed uploads: what does not depend on what the archive holds.

Read in this order: :mod:`.deb822` (text), :mod:`.openpgp`, :mod:`.clearsigned`, :mod:`.gpgv`, :mod:`.keyring` and
:mod:`.signature` (who), :mod:`.changes` (what is promised), :mod:`.streams` and :mod:`.archives`, :mod:`.binary` and
:mod:`.source` (what is there), :mod:`.check` (one whole upload), :mod:`.worker` and :mod:`.pool` (in a process of its
own, within limits), :mod:`.external` (what the operator wants to run over it besides, :mod:`.confined`).
"""
