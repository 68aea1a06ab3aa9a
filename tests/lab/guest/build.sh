#!/bin/bash
# Builds the guest's vmlinuz and initrd.gz from busybox-static and some modules of Debian's cloud kernel, unless the cache has them,
# and prints the folder that holds them.
#
# The folder's name holds a sum of all that goes in, so that an old guest is never taken for a new one. It is complete before it gets
# that name: a build that was killed leaves only a temporary folder, and of two builders at once the first wins.
set -eu
SELF=$(cd "$(dirname "$0")" && pwd)
CACHE=${XVM_LAB_CACHE:-/var/cache/xvm-lab}
sum=$(cat "$SELF/init" "$SELF/memcheck.c" "$SELF/build.sh" /bin/busybox | sha256sum | cut -c1-12)
out=$CACHE/guest-$sum
[ -d "$out" ] && { echo "$out"; exit; }
mkdir -p "$CACHE"
find "$CACHE" -maxdepth 1 -name 'tmp.*' -mmin +60 -exec rm -rf {} +      # what killed builders left
T=$(mktemp -d "$CACHE/tmp.XXXXXX"); trap 'rm -rf "$T"' EXIT
chmod 755 "$T"; cd "$T"

# the kernel is unpacked, not installed
p=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends/{print $2; exit}')
[ -n "$p" ] || { apt-get update -q >&2; p=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends/{print $2; exit}'); }
{ apt-get download -q "$p" 2>/dev/null || { apt-get update -q && apt-get download -q "$p"; }; } >&2
mkdir kernel; dpkg -x "$p"_*.deb kernel
V=$(basename kernel/lib/modules/*) M=kernel/lib/modules/*/kernel

mkdir -p root/{bin,m,proc,sys,dev,tmp,etc} guest
cp /bin/busybox root/bin/busybox
gcc -O2 -static -o root/bin/memcheck "$SELF/memcheck.c"
cp "$SELF/init" root/init; chmod +x root/init
for m in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci_modern_dev \
  drivers/virtio/virtio_pci drivers/block/virtio_blk net/core/failover drivers/net/net_failover drivers/net/virtio_net \
  drivers/virtio/virtio_balloon drivers/acpi/button drivers/input/evdev; do
  cp $M/$m.ko root/m/; strip --strip-debug "root/m/$(basename $m).ko"
done
( cd root; find . | cpio -o -H newc --quiet | gzip -9 ) > guest/initrd.gz
cp "kernel/boot/vmlinuz-$V" guest/vmlinuz
chmod -R a+rX guest
mv -T guest "$out" 2>/dev/null || [ -d "$out" ]
echo "$out"
