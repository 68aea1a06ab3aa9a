#!/bin/bash
# hosts.sh - several "physical hosts" on one Linux machine, to test a manager of virtual machines.
#
# A host has its own PID, network, mount, UTS, IPC and cgroup namespaces with an init, its own libvirtd (own /etc/libvirt, /run,
# /var/lib/libvirt), host name, host UUID and address. One more host, "store", has no libvirtd: it serves NBD disks.
# There is no systemd in a host, and /dev/kvm is hidden.
#
#   hosts.sh up [N]            start N hosts (default 3) and the storage host; hosts that are up stay as they are
#   hosts.sh down              stop all hosts, remove bridge, cables, cgroups and namespaces; keeps logs and definitions
#   hosts.sh clean             down, and remove the hosts' files
#   hosts.sh status            one line a host
#   hosts.sh uri HOST          the URI of its libvirtd for programs outside the host (a UNIX socket)
#   hosts.sh reach HOST        the URI by which other hosts, and programs outside, reach it over the network
#   hosts.sh cpu HOST          a file with the host's own CPU times
#   hosts.sh cpus HOST LIST    from now on the host runs on these CPUs of the machine only (0-1,3), and the lab's hosts get more of
#                              them than what else runs there; before its guests start
#   hosts.sh virsh HOST ...    virsh on that host
#   hosts.sh exec HOST cmd...  run a command inside the host
#   hosts.sh pid HOST          the PID of its init, as seen outside
#   hosts.sh daemon-pid HOST   the PID of its libvirtd, as seen outside
#   hosts.sh crash HOST        power failure: cable out, then everything in it dies at once; others see silence
#   hosts.sh kill HOST         the same with the cable in: others see their connections closed
#   hosts.sh boot HOST         power on again
#   hosts.sh daemon-kill HOST [SIG]   only libvirtd; guests go on.  daemon-start HOST starts it again
#   hosts.sh cut HOST, heal HOST      network cable out, in
#   hosts.sh nbd-start EXPORT FILE PORT [nbdkit options], nbd-stop EXPORT [SIG]    disk server on the storage host
#
# Environment: see README.md.
set -u
SELF=$(cd "$(dirname "$0")" && pwd)
LAB=${LAB:?a scratch folder for the state}
ID=${LAB_ID:-lab}
BR=${ID}br0
NET=${LAB_NET:-10.77.0}
CACHE=${XVM_LAB_CACHE:-/var/cache/xvm-lab}
NAMES=(ferby gerby herby ierby jerby kerby lerby merby)
STORE=store
CGS="cpu cpuacct cpuset memory devices freezer blkio pids"     # hierarchies of cgroup version 1; those that lack are left out
H=$LAB/hosts
export LAB_QEMU=${LAB_QEMU:-} LAB_ODD=${LAB_ODD:-1}

say() { echo "hosts.sh: $*" >&2; }
die() { say "$*"; exit 1; }
[ ${#ID} -le 6 ] || die "LAB_ID $ID is too long, at most 6 characters (names of interfaces have 15)"

idx() { # HOST: its number, from 1
  local i
  for i in "${!NAMES[@]}"; do [ "${NAMES[$i]}" = "$1" ] && { echo $((i+1)); return; }; done
  [ "$1" = $STORE ] && { echo 10; return; }
  die "no such host: $1"
}
addr() { echo "$NET.$((10 + $(idx "$1")))"; }
uri() { echo "qemu+unix:///system?socket=$H/$1/run/libvirt-sock"; }

ours() { # PID HOST: whether that process is (the parent of) the host's init and not another one that got its number
  [ -r "/proc/$1/cmdline" ] && tr '\0' '\n' < "/proc/$1/cmdline" | grep -qxF "$H/$2"
}
hpid() { local p; p=$(cat "$H/$1/pid" 2>/dev/null) && ours "$p" "$1" && echo "$p"; }
inhost() { local h=$1 p; shift; p=$(hpid "$h") || die "$h is not up"; nsenter -t "$p" -m -u -i -n -p -C -- "$@"; }

daemon_pid() { # libvirtd writes the number that it has inside; the one outside is found by its parent, the host's init
  local p c; p=$(hpid "$1") || return 1
  for c in $(cat /proc/"$p"/task/"$p"/children); do [ "$(cat /proc/"$c"/comm 2>/dev/null)" = libvirtd ] && { echo "$c"; return; }; done
  return 1
}

# What QEMU can do is the same on all hosts: libvirt asks it once (1 s), all others copy the answer. libvirt itself checks that it fits.
caps() { echo "$CACHE/caps-$(basename "${LAB_QEMU:-odd$LAB_ODD}")-$(dpkg-query -W -f '${Version}.' libvirt-daemon qemu-system-x86 2>/dev/null | tr -c 'a-zA-Z0-9.\n' _)"; }

write_conf() { # HOST
  local h=$1 d=$H/$1 i n j=0 c; i=$(idx "$h")
  mkdir -p "$d"/{etc/nbd,run,lib,cache,log/qemu}
  cat > "$d/etc/libvirtd.conf" <<X
listen_tls = 0
listen_tcp = 1
listen_addr = "$(addr "$h")"
tcp_port = "16509"
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0770"
host_uuid = "00000000-0000-4000-8000-0000000000$(printf %02x $((10+i)))"
keepalive_interval = 1
keepalive_count = 4
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
X
  cat > "$d/etc/qemu.conf" <<X
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = [ ]
migration_host = "$(addr "$h")"
migration_address = "$(addr "$h")"
migration_port_min = 49152
migration_port_max = 49215
keepalive_interval = 1
keepalive_count = 4
max_core = 0
nbd_tls_x509_cert_dir = "/etc/libvirt/nbd"
X
  echo 'uri_default = "qemu:///system"' > "$d/etc/libvirt.conf"
  { echo "127.0.0.1 localhost"
    for n in "${NAMES[@]}"; do j=$((j+1)); echo "$NET.$((10+j)) $n"; done
    echo "$NET.20 $STORE"; } > "$d/hosts"
  c=$(caps)
  if [ -d "$c" ] && [ ! -d "$d/cache/qemu/capabilities" ]; then mkdir -p "$d/cache/qemu"; cp -r "$c" "$d/cache/qemu/capabilities"; fi
}

cg_enter() { # HOST: put this shell into the host's cgroups
  local c p f
  for c in $CGS; do
    [ -e /sys/fs/cgroup/$c/tasks ] || continue
    p=/sys/fs/cgroup/$c
    for f in "$ID" "$1"; do
      mkdir -p "$p/$f"
      if [ $c = cpuset ]; then      # a new cpuset is empty, and nothing can enter it
        [ -n "$(cat "$p/$f/cpuset.cpus")" ] || cat "$p/cpuset.cpus" > "$p/$f/cpuset.cpus"
        [ -n "$(cat "$p/$f/cpuset.mems")" ] || cat "$p/cpuset.mems" > "$p/$f/cpuset.mems"
      fi
      p=$p/$f
    done
    echo $BASHPID > "$p/cgroup.procs"
  done
}

boot() { # HOST
  local h=$1 d=$H/$1 k u t=0 ns mine
  hpid "$h" > /dev/null && die "$h is up already"
  write_conf "$h"
  rm -rf "$d/ready" "$d/pid" "$d/outer" "$d/run/"*    # /run does not survive a reboot
  ip link del "$ID-$h" 2>/dev/null
  ip link add "$ID-$h" type veth peer name up0 netns $$ || die "$h: no cable"
  ip link set "$ID-$h" master "$BR" up
  # unshare stays as the parent of the host's init, and takes it along when it dies
  ( cg_enter "$h"
    exec setsid unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child --mount-proc --propagation private \
      bash "$SELF/host-init.sh" "$h" "$(addr "$h")" "$d" "$CGS" ) < /dev/null > "$d/init.log" 2>&1 &
  u=$!
  disown $u
  echo $u > "$d/outer"
  mine=$(readlink /proc/self/ns/net)
  while :; do     # the first children may be helpers of cg_enter: the init is the one in another network namespace
    k=$(cat /proc/$u/task/$u/children 2>/dev/null); k=${k%% *}
    if [ -n "$k" ]; then ns=$(readlink "/proc/$k/ns/net"); [ -n "$ns" ] && [ "$ns" != "$mine" ] && break; fi
    t=$((t+1)); [ $t -gt 500 ] && die "$h: no init, see $d/init.log"; sleep 0.02
  done
  echo "$k" > "$d/pid"
  ip link set up0 netns "$k" || die "$h: its cable cannot be plugged in"
  ip netns attach "$ID-$h" "$k" 2>/dev/null
  return 0
}

ready() { # HOST: wait until its init says so
  local t=0
  while [ ! -e "$H/$1/ready" ]; do
    t=$((t+1)); [ $t -gt 600 ] && die "$1 did not get ready in 30 s, see $H/$1/init.log and log/libvirtd.log"
    hpid "$1" > /dev/null || die "$1: its init died, see $H/$1/init.log"
    sleep 0.05
  done
}

crash() { # HOST [net]: with "net" the cable goes first, as in a power failure
  local p o t=0
  [ "${2:-}" = net ] && ip link del "$ID-$1" 2>/dev/null
  if p=$(hpid "$1"); then
    kill -9 "$p"
    while [ -d "/proc/$p" ] && [ $t -lt 500 ]; do t=$((t+1)); sleep 0.02; done
  fi
  o=$(cat "$H/$1/outer" 2>/dev/null) && ours "$o" "$1" && kill -9 "$o"      # a boot that was broken off
  ip netns del "$ID-$1" 2>/dev/null
  ip link del "$ID-$1" 2>/dev/null
  rm -f "$H/$1/pid" "$H/$1/outer" "$H/$1/ready"
  return 0
}

guard() { # remove the lab when its owner has gone without doing it
  ( exec setsid bash -c 'while [ -e "$2/alive" ] && [ -d "/proc/$1" ]; do sleep 1; done; [ ! -e "$2/alive" ] || exec "$0" clean' \
      "$SELF/hosts.sh" "$1" "$H" ) < /dev/null > /dev/null 2>&1 &
  disown $!
}

up() {
  local n=${1:-3} h c t0; t0=$(date +%s.%N)
  [ "$n" -le ${#NAMES[@]} ] || die "at most ${#NAMES[@]} hosts"
  mkdir -p "$H" "$CACHE"
  if [ ! -e "$H/alive" ]; then touch "$H/alive"; [ -z "${LAB_OWNER:-}" ] || guard "$LAB_OWNER"; fi
  if ! ip link show "$BR" > /dev/null 2>&1; then
    ip link add "$BR" type bridge forward_delay 0 stp_state 0 && ip addr add "$NET.1/24" dev "$BR" && ip link set "$BR" up || die "no bridge"
  fi
  for h in $STORE "${NAMES[@]:0:$n}"; do hpid "$h" > /dev/null || boot "$h"; done
  for h in $STORE "${NAMES[@]:0:$n}"; do ready "$h"; done
  c=$(caps)
  if [ ! -d "$c" ]; then
    virsh -c "$(uri "${NAMES[0]}")" capabilities > /dev/null
    if [ -d "$H/${NAMES[0]}/cache/qemu/capabilities" ]; then    # complete under another name first: two labs may do this at once
      cp -r "$H/${NAMES[0]}/cache/qemu/capabilities" "$c.$$" && { mv -T "$c.$$" "$c" 2>/dev/null || rm -rf "$c.$$"; }
    fi
  fi
  say "up: $n hosts in $(awk -v a="$t0" -v b="$(date +%s.%N)" 'BEGIN{printf "%.2f", b-a}') s"
}

down() {
  local h c t
  rm -f "$H/alive"
  for h in $STORE "${NAMES[@]}"; do [ -d "$H/$h" ] && crash "$h"; done
  ip link del "$BR" 2>/dev/null
  for c in $CGS; do       # a cgroup can go when the last of its processes has been reaped
    t=0
    while [ -d "/sys/fs/cgroup/$c/$ID" ] && [ $t -lt 100 ]; do
      find "/sys/fs/cgroup/$c/$ID" -depth -type d -exec rmdir {} + 2>/dev/null
      t=$((t+1)); [ -d "/sys/fs/cgroup/$c/$ID" ] && sleep 0.02
    done
  done
  return 0
}

case "${1:-}" in
  up) shift; up "$@";;
  down) down;;
  clean) down; rm -rf "$H";;
  status) for h in $STORE "${NAMES[@]}"; do
      [ -d "$H/$h" ] || continue
      if p=$(hpid "$h"); then echo "$h up init=$p addr=$(addr "$h") procs=$(inhost "$h" ps -e --no-headers | wc -l)"; else echo "$h down"; fi
    done;;
  uri) idx "$2" > /dev/null; uri "$2";;
  reach) echo "qemu+tcp://$(addr "$2")/system";;
  cpu) echo "/sys/fs/cgroup/cpuacct/$ID/$2/cpuacct.usage_percpu";;
  cpus) idx "$2" > /dev/null; echo "$3" > "/sys/fs/cgroup/cpuset/$ID/$2/cpuset.cpus" || die "$2: cannot run on the CPUs $3"
    # a busy guest is to get most of a CPU also beside a compiler, and who watches it enough; 1024 is one usual process
    [ ! -e "/sys/fs/cgroup/cpu/$ID/cpu.shares" ] || echo 4096 > "/sys/fs/cgroup/cpu/$ID/cpu.shares";;
  virsh) h=$2; shift 2; exec virsh -c "$(uri "$h")" "$@";;
  exec) shift; inhost "$@";;
  pid) hpid "$2";;
  daemon-pid) daemon_pid "$2";;
  crash) crash "$2" net;;
  kill) crash "$2";;
  boot) boot "$2"; ready "$2";;
  daemon-kill) p=$(daemon_pid "$2") || die "no libvirtd on $2"; kill "-${3:-TERM}" "$p";;
  daemon-start) inhost "$2" bash "$SELF/host-init.sh" daemon;;
  cut) ip link set "$ID-$2" down;;
  heal) ip link set "$ID-$2" up;;
  nbd-start) e=$2 f=$3 port=$4; shift 4; o=(); kv=()
    for x in "$@"; do case "$x" in -*) o+=("$x");; *) kv+=("$x");; esac; done    # key=value belongs after the plugin's name
    inhost $STORE nbdkit -P "/run/nbd-$e.pid" -i "$(addr $STORE)" -p "$port" -e "$e" "${o[@]}" file "$f" "${kv[@]}";;
  nbd-stop) # at SIGTERM nbdkit waits, not serving, until its last client has gone: so SIGKILL
    inhost $STORE bash -c "p=\$(cat /run/nbd-$2.pid) && kill -${3:-KILL} \$p; while [ ${3:-KILL} = KILL ] && kill -0 \$p 2>/dev/null; do sleep 0.02; done";;
  *) sed -n '2,/^set -u/{/^set -u/!p}' "$0"; exit 2;;
esac
