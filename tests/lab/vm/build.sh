#!/bin/bash
# Takes Debian's kernel with the modules that init names, and a file system of busybox that loads them, unless the cache has them;
# prints the folder that holds `vmlinuz` and `initrd`.
#
# The folder's name holds a sum of all that goes in, as that of ../guest/build.sh, and it is complete before it gets that name.
set -eu
SELF=$(cd "$(dirname "$0")" && pwd)
CACHE=${XVM_LAB_CACHE:-/var/cache/xvm-lab}
sum=$(cat "$SELF/init" "$SELF/build.sh" /bin/busybox | sha256sum | cut -c1-12)
out=$CACHE/vm-$sum
[ -d "$out" ] && { echo "$out"; exit; }
mkdir -p "$CACHE"
find "$CACHE" -maxdepth 1 -name 'tmp.*' -mmin +60 -exec rm -rf {} +      # what killed builders left
T=$(mktemp -d "$CACHE/tmp.XXXXXX"); trap 'rm -rf "$T"' EXIT
chmod 755 "$T"; cd "$T"

# the kernel is unpacked, not installed
p=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends/{print $2; exit}')
[ -n "$p" ] || { apt-get update -q >&2; p=$(apt-cache depends linux-image-amd64 | awk '/Depends/{print $2; exit}'); }
{ apt-get download -q "$p" 2>/dev/null || { apt-get update -q && apt-get download -q "$p"; }; } >&2
mkdir kernel; dpkg -x "$p"_*.deb kernel
V=$(basename kernel/lib/modules/*)
depmod -b kernel "$V"

# the modules with all that they need
mkdir -p root/{bin,proc,sys,dev,lower,upper,new} "root/lib/modules/$V" vm
sed -n 's/^LOAD="\(.*\)"$/\1/p; s/^HAVE="\(.*\)"$/\1/p' "$SELF/init" | tr ' ' '\n' > wanted
( cd "kernel/lib/modules/$V"
  awk 'NR==FNR{want[$1]; next} {f=$1; sub(/:$/,"",f); n=f; sub(/.*\//,"",n); sub(/\.ko.*/,"",n); if (n in want) {$1=f; for(i=1;i<=NF;i++) print $i}}' \
    "$T/wanted" modules.dep | sort -u | while read -r f; do
      mkdir -p "$T/root/lib/modules/$V/$(dirname "$f")"; cp "$f" "$T/root/lib/modules/$V/$f"
      case "$f" in *.ko) strip --strip-debug "$T/root/lib/modules/$V/$f";; esac
    done
  cp modules.order modules.builtin modules.builtin.modinfo "$T/root/lib/modules/$V/" )
depmod -b root "$V"
cp /bin/busybox root/bin/busybox
cp "$SELF/init" root/init; chmod +x root/init
( cd root; find . | cpio -o -H newc --quiet ) > vm/initrd
cp "kernel/boot/vmlinuz-$V" vm/vmlinuz
chmod -R a+rX vm
mv -T vm "$out" 2>/dev/null || [ -d "$out" ]
echo "$out"
