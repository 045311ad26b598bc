#!/bin/bash
# Boots a systemd of its own. Usage: private_systemd.sh CGROUP [--installable] [VISIBLE...]
#
# CGROUP is a cgroup2 folder of its own. Whatever this systemd writes is in memory that goes with it: /run, /tmp, /var,
# /srv, /root, /home, /dev, and a copy of /etc. Of what these hide, the VISIBLE folders are shown, to everybody in there.
# With --installable, /usr and /opt and what dpkg and apt know can be written, too: by overlays, in memory.
set -eu
if [ "${PRIVATE_SYSTEMD:-}" != inside ]; then
    echo $$ > "$1/cgroup.procs"  # before the namespace is made: this folder becomes its root
    export PRIVATE_SYSTEMD=inside
    exec unshare --pid --mount --uts --ipc --cgroup --fork --kill-child --mount-proc bash "$0" "$@"
fi
shift
installable=
[ "${1:-}" != --installable ] || { installable=yes; shift; }
mount --make-rprivate /
hostname private

scratch=/media
mount -t tmpfs -o mode=0755 scratch "$scratch"
for folder; do
    mkdir -p "$scratch/visible$folder"
    mount --rbind "$folder" "$scratch/visible$folder"
done
cp -a /etc "$scratch/etc"

mkdir "$scratch/dev"
for node in null zero full random urandom tty; do
    touch "$scratch/dev/$node"
    mount --bind "/dev/$node" "$scratch/dev/$node"
done
mkdir "$scratch/dev/shm" "$scratch/dev/pts"
mount -t tmpfs -o mode=1777 shm "$scratch/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$scratch/dev/pts"
ln -s pts/ptmx "$scratch/dev/ptmx"
ln -s /proc/self/fd "$scratch/dev/fd"

mount --rbind "$scratch/dev" /dev
mount --bind "$scratch/etc" /etc
if [ "$installable" ]; then
    overlay() {
        mkdir -p "$scratch/upper$1" "$scratch/work$1"
        mount -t overlay -o "lowerdir=$1,upperdir=$scratch/upper$1,workdir=$scratch/work$1" overlay "$2"
    }
    overlay /usr /usr
    overlay /opt /opt
    for folder in /var/lib/dpkg /var/lib/apt; do
        mkdir -p "$scratch/kept$folder"
        mount --bind "$folder" "$scratch/kept$folder"
    done
fi
for folder in run srv var root home; do
    mount -t tmpfs -o mode=0755 "$folder" "/$folder"
done
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /var/lib /var/log /var/cache
mkdir -m 1777 /var/tmp
ln -s /run /var/run
if [ "$installable" ]; then
    for folder in /var/lib/dpkg /var/lib/apt; do
        mkdir -p "$folder" "$scratch/upper$folder" "$scratch/work$folder"
        mount -t overlay overlay "$folder" \
            -o "lowerdir=$scratch/kept$folder,upperdir=$scratch/upper$folder,workdir=$scratch/work$folder"
    done
    mkdir -p /var/cache/apt/archives/partial
fi
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder; do
    mkdir -p "$folder"
    mount --rbind "$scratch/visible$folder" "$folder"
done

# Only what a service needs; nothing that sets up a machine, which is not this one's.
rm -rf /etc/systemd/system /etc/fstab
mkdir -p /etc/systemd/system
for unit in systemd-remount-fs systemd-sysctl systemd-modules-load systemd-binfmt systemd-update-utmp \
    systemd-journal-flush systemd-tmpfiles-setup-dev systemd-pstore systemd-random-seed; do
    ln -s /dev/null "/etc/systemd/system/$unit.service"
done
for unit in proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount systemd-journald-audit.socket; do
    ln -s /dev/null "/etc/systemd/system/$unit"
done
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no
