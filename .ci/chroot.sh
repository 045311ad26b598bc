#!/usr/bin/env bash
# Passes tests on a Debian of its own, with that Debian's own Python: .ci/chroot.sh RELEASE [pytest's own arguments].
# The chroot is kept in .cache. Needs root. The mirror is that of apt's own sources; pip's and apt's settings come along.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/setup.sh

# What the tests start that need no service beside them, and what apt and pip need there.
CHROOT_PACKAGES=$(echo ca-certificates apt-utils dpkg-dev dput gcc git gnupg gpgv libc6-dev libseccomp2 procps python3-dev \
  python3-venv systemd util-linux xz-utils zstd | tr ' ' ,)

release=$1
shift
[ "$(id -u)" = 0 ] || die "a chroot is made by root only"
chroot=$(made_chroot "$release" "$CHROOT_PACKAGES")
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
  [ ! -e "$file" ] || cp --dereference "$file" "$chroot$file"
done
for folder in /etc/xdg/pip /root/.config/pip; do
  [ ! -d "$folder" ] || { mkdir -p "$chroot$folder"; cp --dereference --recursive "$folder/." "$chroot$folder"; }
done
cp --dereference /etc/ssl/certs/ca-certificates.crt "$chroot/root/ca-certificates.crt"
rm -rf "$chroot/src"
mkdir "$chroot/src"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create | tar --extract --directory="$chroot/src"

# In namespaces of their own, so that nothing stays mounted or running.
exec unshare --mount --pid --fork --kill-child --propagation=private bash -euc '
  chroot=$1; shift
  mount -t proc proc "$chroot/proc"
  mount -t tmpfs -o mode=1777 tmpfs "$chroot/tmp"
  mount --rbind /dev "$chroot/dev"
  mount --rbind /sys "$chroot/sys"
  exec chroot "$chroot" env -u PYTHON -u INCOMINGD_NO_SKIPS HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 bash -euc "
    cd /src
    # Whom this machine trusts; again after the upgrade, since that of ca-certificates writes the file of its own.
    cp /root/ca-certificates.crt /etc/ssl/certs/
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get upgrade -y -qq >/dev/null
    cp /root/ca-certificates.crt /etc/ssl/certs/
    . .ci/setup.sh
    virtual_environment test,pyinotify 2>&1 | grep -v ^WARNING: || [ -x .venv/bin/pytest ]
    .venv/bin/python -m pytest -rs -n \"\$(nproc)\" --dist worksteal \"\$@\" && exit
    say \"what failed, once more\"
    exec .venv/bin/python -m pytest --last-failed --last-failed-no-failures none
  " bash "$@"
' bash "$chroot" "$@"
