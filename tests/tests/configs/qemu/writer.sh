#!/bin/sh
# The guest's /etc/rc.local: writes numbered records to the second volume for ever, and reads some back.
#
# A record is a slot of 2048 bytes, 32 times the same line. Slot 0 counts boots, slot 1 is the last record, boot N writes to the slots
# from 1024 * N on, one after the other. Each record also says how many the boot before had written when this one began.
D=/dev/vdb
[ -b $D ] || D=/dev/xvdb
swapoff $D 2> /dev/null
put() { # SLOT TEXT
    slot=$1; set -- "$2"
    for i in 1 2 3 4 5; do set -- "$@" "$@"; done
    printf '%-62s|\n' "$@" | dd of=$D bs=2048 seek="$slot" count=1 iflag=fullblock conv=notrunc,fsync 2> /dev/null
}
get() { # SLOT
    dd if=$D bs=2048 skip="$1" count=1 2> /dev/null | tr -d '\0' | sed -n '1s/ *|$//p'
}
boot=$(get 0 | sed -n 's/^boot \([0-9]*\)$/\1/p')
boot=$((boot + 1))
old=$(dd if=$D bs=2048 skip=$(((boot - 1) * 1024)) count=1024 2> /dev/null | tr -d '\0' | wc -l)
old=$((old / 32))
[ $boot = 1 ] && old=0
put 0 "boot $boot"
echo "boot $boot found $old"
n=0
while [ $n -lt 1000 ]; do
    n=$((n + 1)); slot=$((boot * 1024 + n - 1)) text="boot $boot seq $n old $old"
    until put $slot "$text"; do echo "write error at $n"; sleep 0.2; done
    put 1 "$text" || echo "write error at the last"
    if [ $((n % 8)) = 0 ]; then
        echo 1 > /proc/sys/vm/drop_caches
        [ "$(get $slot)" = "$text" ] || echo "read error at $n"
        echo "boot $boot wrote $n"
    fi
    sleep 0.03
done
