#!/bin/bash
# Is this machine fit for the tests? Two hosts and a storage host; a tiny guest on an NBD disk migrates there and back N times, live.
# Says how long each migration took, and fails when a tick of the guest was lost or doubled.
set -eu
cd "$(dirname "$0")"
export LAB=${LAB:-$(mktemp -d)} LAB_ID=${LAB_ID:-lab} LAB_NET=${LAB_NET:-10.77.0}; N=${N:-4}; echo "lab in $LAB"
guest/build.sh > /dev/null
trap './hosts.sh down' EXIT
./hosts.sh up 2
truncate -s 64M "$LAB/small-1.img"; ./hosts.sh nbd-start small-1 "$LAB/small-1.img" 10809
F=$(./hosts.sh uri ferby) G=$(./hosts.sh uri gerby)
./domxml.sh small-1 1 tick=0.2 > "$LAB/small-1.xml"
virsh -q -c "$F" define "$LAB/small-1.xml"; virsh -q -c "$F" start small-1
for _ in $(seq 200); do grep -q 'TICK 3 ' "$LAB/hosts/ferby/log/small-1.console" 2>/dev/null && break; sleep 0.1; done
s=$F d=gerby
for i in $(seq "$N"); do
  t=$(date +%s%N); virsh -q -c "$s" migrate --live --p2p --persistent --undefinesource small-1 "$(./hosts.sh reach $d)"
  [ $d = gerby ] && { n=$G; m=ferby; } || { n=$F; m=gerby; }
  echo "migration $i to $d: $(( ($(date +%s%N)-t)/1000000 )) ms, $(virsh -q -c "$n" domjobinfo --completed small-1 | awk '/Total downtime/{print "downtime "$3" ms"}')"
  s=$n d=$m; sleep 1
done
cat "$LAB"/hosts/*/log/small-1.console | tr -d '\r' |
  awk '/^TICK/{n[$2]++; if($2>m)m=$2} END{for(i=1;i<=m;i++) if(n[i]!=1) bad++; print m" ticks, "bad+0" lost or doubled"; exit bad>0}'
