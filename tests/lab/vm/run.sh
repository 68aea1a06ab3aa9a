#!/bin/bash
# run.sh - runs a command in a virtual machine that has what this one lacks: a kernel with device mapper and network block devices.
#
#   run.sh [-m MIB] [-d MIB] [-t SECONDS] COMMAND [ARGUMENT...]
#
# The machine sees the files of this one as they are, and what it writes is gone with it. Root, with the caller's environment and
# directory; no network but loopback. What the command prints comes out here, and its exit status is that of run.sh; 124: it was not
# over in time; 125: the machine did not come up or fell over, and the end of its console is shown.
#
#   -m MIB      its memory, which also holds what is written (2048)
#   -d MIB      the size of its empty disk /dev/vda, a sparse file (4096)
#   -t SECONDS  the bound for all (300)
set -eu
SELF=$(cd "$(dirname "$0")" && pwd)
mem=2048 disk=4096 bound=300
while getopts m:d:t: o; do
  case $o in m) mem=$OPTARG;; d) disk=$OPTARG;; t) bound=$OPTARG;; *) sed -n '2,/^set -eu/{/^set -eu/!p}' "$0"; exit 2;; esac
done
shift $((OPTIND-1))
[ $# -gt 0 ] || { sed -n '2,/^set -eu/{/^set -eu/!p}' "$0"; exit 2; }
kernel=$("$SELF/build.sh")
T=$(mktemp -d "${XVM_LAB_CACHE:-/var/cache/xvm-lab}/tmp.vm.XXXXXX"); trap 'rm -rf "$T"' EXIT
mkdir "$T/xchg"
{ export -p; printf 'cd %q || exit 126\nexec' "$PWD"; printf ' %q' "$@"; echo; } > "$T/xchg/command"
cat > "$T/xchg/main" <<'X'
exec < /dev/null > /dev/vmout 2>&1
udev=/lib/systemd/systemd-udevd
[ ! -x $udev ] || { $udev --daemon; udevadm trigger --action add --subsystem-match block; udevadm settle --timeout 10; } > /dev/null 2>&1
bash /run/xchg/command
echo $? > /run/xchg/status
exec /bin/busybox reboot -f
X
truncate -s "${disk}M" "$T/disk"
# each ends when its parent does, so all end when this script is killed
# a standard input that never ends: at its end the port would close, and who writes to it would wait
mkfifo "$T/in"; exec 9<> "$T/in"
rc=0; set -o pipefail
setpriv --pdeathsig KILL timeout -k 5 "$bound" setpriv --pdeathsig KILL \
  qemu-system-x86_64 -accel tcg,thread=multi,tb-size=256 -cpu max,la57=off -smp 2 -m "$mem" \
  -nodefaults -no-user-config -no-reboot -display none -chardev "file,id=console,path=$T/console" -serial chardev:console \
  -kernel "$kernel/vmlinuz" -initrd "$kernel/initrd" \
  -append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable random.trust_cpu=on" \
  -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=root,mount_tag=root \
  -fsdev "local,id=xchg,path=$T/xchg,security_model=none" -device virtio-9p-pci,fsdev=xchg,mount_tag=xchg \
  -drive "file=$T/disk,format=raw,if=none,id=disk,cache=unsafe,discard=unmap,aio=threads" -device virtio-blk-pci,drive=disk \
  -device virtio-serial-pci -chardev stdio,id=out,signal=off -device virtserialport,chardev=out,name=out \
  <&9 2> "$T/said" | cat || rc=${PIPESTATUS[0]}
[ -s "$T/xchg/status" ] && exit "$(cat "$T/xchg/status")"
{ cat "$T/said"; tail -n 30 "$T/console" 2>/dev/null; } >&2
[ $rc = 124 ] || [ $rc = 137 ] && { echo "run.sh: not over within $bound s" >&2; exit 124; }
echo "run.sh: the machine fell over" >&2
exit 125
