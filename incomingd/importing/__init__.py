"""Reads existing packages for an import: found in trees, taken and checked by as many processes as there are cores.

The way of an import::

    tree        every .deb and .dsc below the given paths; or
    repository  what a repository's signed indexes list
    reading     in a worker process: take a copy, hash it, check it as an upload is, make its stanza
    load        all of that in chunks into the staging database; what was read once is not read again

What was read then becomes one request in the journal's queue, and :mod:`incomingd.publish.bulk` publishes it.
"""
