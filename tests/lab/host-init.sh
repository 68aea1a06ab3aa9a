#!/bin/bash
# The first process of one host, called by hosts.sh inside fresh namespaces: host-init.sh NAME ADDRESS FOLDER "CGROUPS"
# Or, inside a host that is up, to start its libvirtd: host-init.sh daemon
start_daemon() {
  rm -f /run/libvirtd.pid
  libvirtd --daemon --listen --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirtd.pid
}
[ "$1" = daemon ] && { start_daemon; exit; }
name=$1 addr=$2 d=$3 cgs=$4
set -e
hostname "$name"
mount --make-rprivate /
# sysfs of this network namespace, and this host's own part of the cgroup trees
umount -l /sys; mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for c in $cgs; do mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c 2>/dev/null || rmdir /sys/fs/cgroup/$c; done
# a /dev of its own, without kvm
n=$d/dev; mkdir -p $n; mount -t tmpfs -o mode=755 tmpfs $n
for x in null zero full random urandom tty fuse; do [ -e /dev/$x ] || continue; : > $n/$x; mount --bind /dev/$x $n/$x; done
mkdir -p $n/{pts,shm,net}
if [ -e /dev/net/tun ]; then : > $n/net/tun; mount --bind /dev/net/tun $n/net/tun; else mknod $n/net/tun c 10 200; fi
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts $n/pts; ln -s pts/ptmx $n/ptmx
mount -t tmpfs tmpfs $n/shm; ln -s /proc/self/fd $n/fd
ln -s fd/0 $n/stdin; ln -s fd/1 $n/stdout; ln -s fd/2 $n/stderr
mount --rbind $n /dev; umount -l $n
# /run and libvirt's folders
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/libvirt /run/lock
mount --bind $d/run /run/libvirt
mkdir -p /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
mount --bind $d/etc /etc/libvirt
mount --bind $d/lib /var/lib/libvirt
mount --bind $d/cache /var/cache/libvirt
mount --bind $d/log /var/log/libvirt
mount --bind $d/hosts /etc/hosts
if [ -n "${LAB_QEMU:-}" ]; then      # another QEMU in place of the installed one
  mount --bind $LAB_QEMU/usr/bin/qemu-system-x86_64 /usr/bin/qemu-system-x86_64
  mount --bind $LAB_QEMU/usr/lib/x86_64-linux-gnu/qemu /usr/lib/x86_64-linux-gnu/qemu
  mount --bind $LAB_QEMU/usr/share/qemu /usr/share/qemu
  mount --bind $LAB_QEMU/usr/share/seabios /usr/share/seabios
elif [ "${LAB_ODD:-1}" = 1 ]; then
  mkdir /run/qemu; : > /run/qemu/qemu-system-x86_64
  mount --bind /usr/bin/qemu-system-x86_64 /run/qemu/qemu-system-x86_64
  mount --bind "$(cd "$(dirname "$0")" && pwd)/qemu-odd" /usr/bin/qemu-system-x86_64
fi
# network: the bridge br0, with the cable up0 that hosts.sh plugs in
ip link set lo up
for i in $(seq 500); do [ -e /sys/class/net/up0 ] && break; sleep 0.02; done
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || :
# as agentd(8) says: a migration whose destination vanishes in its last moment is over after 13 s, not after 15 min
sysctl -qw net.ipv4.tcp_retries2=5 || :
ip link add br0 type bridge forward_delay 0 stp_state 0
# a fixed MAC address, as a real machine has: with a new one after each boot the others' ARP entries are stale for many seconds
ip link set br0 address "$(printf '02:77:00:00:01:%02x' ${addr##*.})"
ip link set up0 master br0; ip link set up0 up
ip addr add $addr/24 dev br0; ip link set br0 up
set +e
if [ "$name" != store ]; then
  start_daemon
  for i in $(seq 600); do [ -S /run/libvirt/libvirt-sock ] && break; sleep 0.05; done
fi
touch $d/ready
trap : HUP INT TERM
while :; do sleep 1000000 & wait $!; done     # as the first process it reaps what daemons leave
