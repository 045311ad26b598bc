"""Takes rights and resources away from the process that calls it, and from all that it starts.

Read in this order: :mod:`.limits` (resources, capabilities and the network), :mod:`.landlock` (which files),
:mod:`.seccomp` and :mod:`.calls` (which system calls), :mod:`.profiles` (what check workers and the operator's programs
are left with).

Rules:

* Nothing that is taken away can be had back, by the process or by what it executes.
* The kernel is asked for its own rules: a landlock rule holds for root too, and for a process with capabilities.
* A kernel that has no landlock or no seccomp is told of (:func:`.profiles.missing`), and the process goes on without.
  Any other failure is an ``OSError``: a process that should be confined and is not must not go on.
"""
