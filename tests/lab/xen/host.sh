#!/bin/bash
# host.sh - real Xen hosts in QEMU, without hardware for virtualisation: xen1 and xen2, with a cable between them.
#
#   host.sh start N            starts host N (1 or 2); returns at once
#   host.sh wait N             until its libvirt answers
#   host.sh ssh N COMMAND...   runs a command there
#   host.sh crash N            power failure: everything on it is gone at once, and nothing closes a connection
#   host.sh cut N, heal N      its cable to the other host out, in
#   host.sh stop               both, and what they wrote
#
# A host has one CPU, which can do PVH guests (SVM with nested paging, by TCG; its clock is said to be invariant, as it is: else each look
# at it is Xen's to answer, and guests start a third slower) and is reached from here by SSH; from there this machine
# is 10.0.2.2. On the cable they are 10.7.0.1 and 10.7.0.2, and guests join it by the bridge xenbr0. /dev/vdb is an empty disk.
# /share there is the folder LAB/share here.
#
# Environment: LAB, a scratch folder; LAB_SSH, the port of host 1's SSH here, host 2's is the next one; LAB_OWNER, a process with which
# they end.
set -u
SELF=$(cd "$(dirname "$0")" && pwd)
LAB=${LAB:?a scratch folder}
PORT=${LAB_SSH:-22200}
die() { echo "host.sh: $*" >&2; exit 1; }
act=${1:-}; N=${2:-}
[ "$act" = stop ] || [ "$N" = 1 ] || [ "$N" = 2 ] || { sed -n '2,/^set -u/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
R=$LAB/xen$N
ours() { local p; p=$(cat "$1/pid" 2>/dev/null) && tr '\0' '\n' < "/proc/$p/cmdline" 2>/dev/null | grep -qF "$1/" && echo "$p"; }
monitor() { # COMMAND: says it to QEMU, waits until it is done
  python3 - "$R/monitor" "$1" <<'X'
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10)
def read():
    said = b""
    while b"(qemu) " not in said:
        said += s.recv(4096)
read(); s.sendall(sys.argv[2].encode() + b"\n"); read()
X
}
case $act in
start)
  folder=$("$SELF/build.sh") || die "nothing to boot"
  [ -z "$(ours "$R")" ] || die "xen$N runs already"
  mkdir -p "$R" "$LAB/share"; rm -f "$R"/*
  qemu-img create -q -f qcow2 -b "$folder/root.img" -F raw "$R/root.qcow2" || die "no disk"
  truncate -s 2G "$R/data.img"
  dom0=900 owner=${LAB_OWNER:-}
  # the cable: datagrams, so that either side may start first, and none notices when the other is gone
  setsid qemu-system-x86_64 -name "xen$N" -accel tcg,thread=multi,tb-size=256 -machine pc -smp 1 -m 1536 \
    -cpu qemu64,+svm,+npt,+invtsc,x-force-features=on \
    -display none -no-reboot -nodefaults -kernel "$folder/xen" \
    -append "console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning noreboot dom0_mem=${dom0}M,max:${dom0}M dom0_max_vcpus=1 \
xpti=no spec-ctrl=no pv-l1tf=no" \
    -initrd "$folder/vmlinuz console=hvc0 mitigations=off nokaslr net.ifnames=0 lab.id=$N loglevel=4,$folder/initrd" \
    -drive "file=$R/root.qcow2,format=qcow2,if=none,id=d0,cache=unsafe" -device virtio-blk-pci,drive=d0 \
    -drive "file=$R/data.img,format=raw,if=none,id=d1,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=d1 \
    -netdev "user,id=n0,hostfwd=tcp:127.0.0.1:$((PORT+N-1))-:22" -device "virtio-net-pci,netdev=n0,mac=52:54:00:07:00:0$N" \
    -netdev "dgram,id=n1,local.type=unix,local.path=$LAB/cable$N,remote.type=unix,remote.path=$LAB/cable$((3-N))" \
    -device "virtio-net-pci,netdev=n1,id=cable,mac=52:54:00:07:01:0$N" \
    -fsdev "local,id=share,path=$LAB/share,security_model=none,readonly=on" -device virtio-9p-pci,fsdev=share,mount_tag=share \
    -chardev "file,id=c0,path=$R/console" -serial chardev:c0 -monitor "unix:$R/monitor,server=on,wait=off" \
    < /dev/null > "$R/said" 2>&1 &
  p=$!; disown $p; echo $p > "$R/pid"
  if [ -n "$owner" ]; then
    ( setsid sh -c "while kill -0 $owner 2>/dev/null && kill -0 $p 2>/dev/null; do sleep 1; done; kill -9 $p" < /dev/null > /dev/null 2>&1 & )
  fi ;;
wait)
  n=0
  until grep -aq 'LAB\[.*READY' "$R/console" 2>/dev/null; do
    [ -n "$(ours "$R")" ] || { cat "$R/said" >&2; tail -n 20 "$R/console" >&2; die "xen$N fell over"; }
    n=$((n+1)); [ $n -gt 1200 ] && { tail -n 30 "$R/console" >&2; die "xen$N is not ready after 300 s"; }
    sleep 0.25
  done ;;
ssh)
  shift 2
  folder=$("$SELF/build.sh") || die "no key"
  # the key in the cache may be read by its owner alone
  exec ssh -q -i "$folder/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=20 -o ServerAliveInterval=15 \
    -o ControlMaster=auto -o ControlPersist=60 -o "ControlPath=$R/ssh" -p $((PORT+N-1)) root@127.0.0.1 "$@" ;;
crash) p=$(ours "$R") || die "xen$N does not run"; kill -9 "$p"; rm -f "$R/pid" ;;
cut) monitor "set_link cable off" ;;
heal) monitor "set_link cable on" ;;
stop)
  for N in 1 2; do R=$LAB/xen$N; p=$(ours "$R") && kill -9 "$p"; rm -rf "$R"; done
  rm -f "$LAB"/cable? ;;
*) die "no such act: $act" ;;
esac
