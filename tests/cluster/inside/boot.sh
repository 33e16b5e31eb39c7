#!/bin/bash
# First process of a machine: gives it a root of its own (overlay, then pivot_root, since a chrooted process may not
# make user namespaces and rootless containers need them), then becomes init.sh.
set -euo pipefail
: "${MACHINE:?}" "${STATE:?}" "${ROOTFS:?}" "${ROLES:?}" "${SLURM_NODES=}" "${CGROUPS=}" "${GPUS:?}"
disk=$STATE/nodes/$MACHINE
root=$disk/merged
umask 022

hostname "$MACHINE"
mount -t overlay overlay -o "lowerdir=$STATE/cfg:$ROOTFS,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"

mount -t tmpfs -o mode=755,size=16m dev "$root/dev"
device() { mknod -m 666 "$root/dev/$1" c "$2" "$3"; }
device null 1 3; device zero 1 5; device full 1 7; device random 1 8; device urandom 1 9; device tty 5 0; device fuse 10 229
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"; done
# GPUs that exist as device files only: the real driver's major number, so that confinement never touches a real device
if [ -n "$SLURM_NODES" ]; then for ((gpu = 0; gpu < GPUS; gpu++)); do device "nvidia$gpu" 195 "$gpu"; done; fi

mount -t tmpfs -o mode=1777,size=4g tmp "$root/tmp"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir -p "$root/home" "$root/scratch" "$root/opt/box" "$root/etc/slurm"
# the shared file systems; rslave: what the harness mounts below them later (a small disk) appears on every machine
mount --rbind --make-rslave "$STATE/shared/home" "$root/home"
mount --rbind --make-rslave "$STATE/shared/scratch" "$root/scratch"
mount --bind -o ro "$STATE/inside" "$root/opt/box"
mount --bind -o ro "$STATE/slurm" "$root/etc/slurm"
case $ROLES in *controller*)
  for folder in mysql:var/lib/mysql slurmctld:var/spool/slurmctld; do
    mkdir -p "$root/${folder#*:}"
    mount --bind "$STATE/db/${folder%%:*}" "$root/${folder#*:}"
  done ;;
esac

if [ -n "$CGROUPS" ]; then # we are in a cgroup namespace: only this machine's own groups show
  mount -t tmpfs -o mode=755 cgroup "$root/sys/fs/cgroup"
  for controller in $CGROUPS; do
    mkdir "$root/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "$root/sys/fs/cgroup/$controller"
  done
fi

cd "$root"
mkdir -p .old
pivot_root . .old
exec chroot . /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
  MACHINE="$MACHINE" ROLES="$ROLES" SLURM_NODES="$SLURM_NODES" /bin/bash /opt/box/init.sh
