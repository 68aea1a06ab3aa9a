#!/bin/bash
# Builds what a real Xen host in QEMU boots, unless the cache has it; prints the folder that holds
#   xen vmlinuz initrd     the hypervisor, the kernel of its first domain and of guests, the first domain's initial RAM file system
#   vmlinux                the same kernel uncompressed, if xz(1) can: a first domain without hardware takes 6 s for it with each start
#   root.img               the first domain's root, ext4: Debian with Xen's tools and libvirt; the first process is `init`
#   modules/               the modules that guests need
#   guest.gz               a guest that needs no disk: see `guest`
#   key                    an SSH key that opens its root account
#
# The folder's name holds a sum of all that goes in, as that of ../guest/build.sh, and it is complete before it gets that name.
# Needs root, and from Debian: mmdebstrap busybox-static e2fsprogs cpio kmod xz-utils openssh-client. Some two minutes.
set -euo pipefail
SELF=$(cd "$(dirname "$0")" && pwd)
CACHE=${XVM_LAB_CACHE:-/var/cache/xvm-lab}
XEN=4.17
sum=$(cat "$SELF/init" "$SELF/guest" "$SELF/build.sh" "$SELF/cpu.xml" /bin/busybox | sha256sum | cut -c1-12)
out=$CACHE/xen-$sum
[ -d "$out" ] && { echo "$out"; exit; }
mkdir -p "$CACHE"
find "$CACHE" -maxdepth 1 -name 'tmp.*' -mmin +60 -exec rm -rf {} +      # what killed builders left
T=$(mktemp -d "$CACHE/tmp.XXXXXX"); trap 'rm -rf "$T"' EXIT
chmod 755 "$T"; cd "$T"; mkdir xen
exec 3>&1 1>&2

# hypervisor and kernel are unpacked, not installed. The cloud kernel cannot be the first domain's.
kernel() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends/{print $2; exit}'; }
p=$(kernel); [ -n "$p" ] || { apt-get update -q; p=$(kernel); }
get() { apt-get download -q "$p" "xen-hypervisor-$XEN-amd64"; }
get 2>/dev/null || { apt-get update -q && get; }
for d in ./*.deb; do dpkg -x "$d" unpacked; done
V=$(basename unpacked/lib/modules/*)
zcat unpacked/boot/xen-$XEN-amd64.gz > xen/xen
cp "unpacked/boot/vmlinuz-$V" xen/vmlinuz
at=$(LC_ALL=C grep -abom1 -P '\xfd7zXZ\x00' xen/vmlinuz | head -n 1 | cut -d: -f1) || true
tail -c "+$((${at:-0} + 1))" xen/vmlinuz | xz -dc --single-stream > xen/vmlinux || cp xen/vmlinuz xen/vmlinux
mv unpacked mod
depmod -b mod "$V"

# the root of the first domain
PACKAGES=xen-utils-$XEN,qemu-system-xen,libvirt-daemon-system,libvirt-daemon-driver-xen,libvirt-clients,libzmq5,iproute2,bridge-utils,kmod,procps
PACKAGES+=,lvm2,thin-provisioning-tools,qemu-utils,qemu-system-common,e2fsprogs,busybox-static,cpio,openssh-server,iputils-ping
mmdebstrap --mode=root --variant=minbase --include="$PACKAGES" --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --setup-hook='mkdir -p "$1/usr/sbin"; printf "#!/bin/sh\nexit 101\n" > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"' \
  bookworm root

# the modules of the first domain, with all that they need
WANTED="virtio_pci virtio_blk virtio_net 9p 9pnet_virtio ext4 xenfs xen_gntdev xen_gntalloc xen_evtchn xen_privcmd xen_netback \
xen_blkback bridge tun loop nbd dm_mod dm_snapshot dm_thin_pool"
deps() { # MODULE...: the files, each after those that it needs
  local m; for m in "$@"; do modprobe -d "$T/mod" -S "$V" --show-depends "$m" 2>/dev/null; done |
    awk '$1=="insmod"{sub(".*/lib/modules/[^/]*/","",$2); if (!s[$2]++) print $2}'
}
rm -rf root/lib/modules; mkdir -p "root/lib/modules/$V"
# shellcheck disable=SC2086 # a list
deps $WANTED | while read -r f; do install -D -m 644 "mod/lib/modules/$V/$f" "root/lib/modules/$V/$f"; done
cp mod/lib/modules/"$V"/modules.{builtin*,order} "root/lib/modules/$V/"
depmod -b root "$V"

# its initial RAM file system mounts its root, and no more
mkdir -p ram/{bin,proc,sys,dev,mnt,m}
cp /bin/busybox ram/bin/; for a in sh mount insmod switch_root sleep cat; do ln -s busybox "ram/bin/$a"; done
n=10; for f in kernel/crypto/crc32c_generic.ko $(deps virtio_pci virtio_blk ext4); do
  [ -e "mod/lib/modules/$V/$f" ] && cp "mod/lib/modules/$V/$f" "ram/m/$n-$(basename "$f")"; n=$((n+1))
done
cat > ram/init <<'X'
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for k in /m/*; do insmod $k; done
n=0; while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
mount -t ext4 -o noatime /dev/vda /mnt
mount -o move /dev /mnt/dev; mount -o move /proc /mnt/proc; mount -o move /sys /mnt/sys
exec switch_root /mnt /sbin/lab-init
X
chmod +x ram/init
( cd ram; find . | cpio -o -H newc --quiet | gzip -1 ) > xen/initrd

# guests
mkdir -p xen/modules small/{bin,proc,sys,dev,m}
n=10; for f in kernel/crypto/crc32c_generic.ko $(deps xen_blkfront xen_netfront ext4 af_packet); do
  [ -e "mod/lib/modules/$V/$f" ] || continue
  cp "mod/lib/modules/$V/$f" xen/modules/
  case $f in */xen-*) cp "mod/lib/modules/$V/$f" "small/m/$n-$(basename "$f")";; esac; n=$((n+1))
done
cp /bin/busybox small/bin/; for a in sh mount insmod sleep usleep cat ip poweroff; do ln -s busybox "small/bin/$a"; done
install -m 755 "$SELF/guest" small/init
( cd small; find . | cpio -o -H newc --quiet | gzip -1 ) > xen/guest.gz

# how it is set up
install -m 755 "$SELF/init" root/sbin/lab-init
ssh-keygen -q -t ed25519 -N '' -f xen/key
install -d -m 700 root/root/.ssh; install -m 600 xen/key.pub root/root/.ssh/authorized_keys
printf 'listen_tls = 0\nlisten_tcp = 1\nauth_tcp = "none"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nkeepalive_interval = 1\nkeepalive_count = 4\n' \
  > root/etc/libvirt/libvirtd.conf
printf 'autoballoon = 0\nkeepalive_interval = 1\nkeepalive_count = 4\n' > root/etc/libvirt/libxl.conf
printf 'autoballoon="off"\n' > root/etc/xen/xl.conf
mkdir -p root/var/log/xen/console; printf 'XENCONSOLED_ARGS="--log=guest"\n' >> root/etc/default/xen
printf '127.0.0.1 localhost\n10.7.0.1 xen1\n10.7.0.2 xen2\n' > root/etc/hosts
# no logical volumes but those of the disk for them: guests' disks are not looked into
printf 'devices { global_filter = [ "a|^/dev/vdb$|", "r|.*|" ] }\n' > root/etc/lvm/lvmlocal.conf
# libvirt has no CPU model that fits what Xen shows of TCG's AMD CPU, and would not start its Xen driver
cp "$SELF/cpu.xml" root/usr/share/libvirt/cpu_map/x86_xenlab.xml
sed -i "s|^.*x86_486.xml.*|&\n    <include filename='x86_xenlab.xml'/>|" root/usr/share/libvirt/cpu_map/index.xml
truncate -s $(( $(du -sm root | cut -f1) + 600 ))M xen/root.img
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -d root xen/root.img

chmod -R a+rX xen/modules; chmod a+rX xen
mv -T xen "$out" 2>/dev/null || [ -d "$out" ]
echo "$out" >&3
