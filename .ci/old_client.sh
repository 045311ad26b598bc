#!/usr/bin/env bash
# Sends with the one-file client from a Debian 11, with its Python 3.9, its gpg and nothing else. Root only.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/setup.sh

[ "$(id -u)" = 0 ] || die "a chroot is made by root only"
virtual_environment test,dev,builders,pyinotify
chroot=$(made_chroot bullseye python3,gnupg,openssh-client,rsync)
INCOMINGD_DEBIAN_11=$chroot exec .venv/bin/python -m pytest tests/client/debian_11.py
