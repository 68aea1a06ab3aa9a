#!/bin/bash
# domxml.sh NAME NUMBER [key=value...] prints the definition of a tiny guest.
#
# mem=MiB vcpus=N maxvcpus=N   its size
# spin=N      busy loops in the guest
# tick=S      seconds between two ticks on the console and on the disk
# dirty=MiB   memory that is written again and again
# disk=0|1 nbd=HOST:PORT export=NAME   a disk on the storage host
# net=0|1     an interface on the host's br0, address LAB_NET.(100 + NUMBER)
# tb=MiB      QEMU's cache of translated code; 32 makes a guest small
# extra=WORDS for the kernel's command line
set -eu
name=$1 num=$2; shift 2
net3=${LAB_NET:-10.77.0}
mem=96 vcpus=1 maxvcpus= spin=0 tick=1 dirty=0 nbd=$net3.20:10809 export=$name machine=pc disk=1 net=1 extra= tb=32
for a in "$@"; do declare "$a"; done
guest=$("$(dirname "$0")/guest/build.sh")
cat <<X
<domain type='qemu'>
  <name>$name</name>
  <uuid>00000000-0000-4000-9000-$(printf %012x "$num")</uuid>
  <memory unit='MiB'>$mem</memory>
  <vcpu${maxvcpus:+ current='$vcpus'}>${maxvcpus:-$vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='$machine'>hvm</type>
    <kernel>$guest/vmlinuz</kernel>
    <initrd>$guest/initrd.gz</initrd>
    <cmdline>console=ttyS0 quiet panic=1 vmname=$name guestip=$net3.$((100+num))/24 spin=$spin tick=$tick dirty=$dirty $extra</cmdline>
  </os>
  <features><acpi/>${tb:+<tcg><tb-cache unit='MiB'>$tb</tb-cache></tcg>}</features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
X
[ "$disk" = 1 ] && cat <<X
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='nbd' name='$export'><host name='${nbd%:*}' port='${nbd#*:}'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>
X
[ "$net" = 1 ] && cat <<X
    <interface type='bridge'>
      <mac address='52:54:00:77:00:$(printf %02x "$num")'/>
      <source bridge='br0'/><model type='virtio'/>
    </interface>
X
cat <<X
    <serial type='pty'><log file='/var/log/libvirt/$name.console' append='on'/><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <controller type='usb' model='none'/>
    <memballoon model='virtio'><stats period='1'/></memballoon>
  </devices>
</domain>
X
