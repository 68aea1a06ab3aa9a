#!/bin/bash
# Fetches Debian's cloud kernel without installing it, unless the cache has it, and prints the folder with `vmlinuz` and `modules/`: what
# the builder `tiny` takes as its kernel.
set -eu
CACHE=${XVM_LAB_CACHE:-/var/cache/xvm-lab}
find_package() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends/{print $2; exit}'; }
p=$(find_package)
[ -n "$p" ] || { apt-get update -q >&2; p=$(find_package); }
out=$CACHE/kernel-$p
[ -d "$out" ] && { echo "$out"; exit; }
mkdir -p "$CACHE"
T=$(mktemp -d "$CACHE/tmp.XXXXXX"); trap 'rm -rf "$T"' EXIT
chmod 755 "$T"; cd "$T"
{ apt-get download -q "$p" 2>/dev/null || { apt-get update -q && apt-get download -q "$p"; }; } >&2
dpkg -x "$p"_*.deb deb
mkdir kernel
mv deb/boot/vmlinuz-* kernel/vmlinuz
mv deb/lib/modules/*/kernel kernel/modules
chmod -R a+rX kernel
mv -T kernel "$out" 2>/dev/null || [ -d "$out" ]
echo "$out"
