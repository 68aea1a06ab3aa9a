#!/usr/bin/env bash
# demo.sh BINARIES MOUNT: a cluster on this machine, mounted at MOUNT: a forwarder, the agents ferby, gerby and herby (simulated,
# 4 CPUs and 16 GiB each), with the domains small-1 to small-5 on ferby, their simulated guests, and the image agent kerby, whose new
# configs are tiny systems.
# Stays until Ctrl-C or SIGTERM, then leaves no process and no mount.
set -u
bin=$(cd "$1" && pwd) || exit 1
made=; [ -d "$2" ] || { mkdir -p "$2" 2>/dev/null && made=1; }
# a mount that a killed demo left answers ENOTCONN to everything: xvmfs heals it, we only need its path
parent=$(cd "$(dirname "$2")" && pwd) || exit 1
mount=$parent/$(basename "$2")
run=${XDG_RUNTIME_DIR:-/tmp}/xvm-demo-$(id -u)-$(printf %s "$mount" | cksum | cut -d' ' -f1)
bus=ipc://$run/bus

say() { echo "demo: $*"; }

# Ends the process whose number stands in a file, if it is still the program that we started.
end() { # FILE PROGRAM SIGNAL
    local pid t
    pid=$(cat "$1" 2>/dev/null) || return 0
    case "$(readlink "/proc/$pid/exe" 2>/dev/null)" in */"$2" | */"$2 (deleted)") ;; *) rm -f "$1"; return 0 ;; esac
    kill -"$3" "$pid" 2>/dev/null
    for t in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.05; done
    [ ! -d "/proc/$pid" ] || kill -9 "$pid" 2>/dev/null
    rm -f "$1"
}

# What exports the disks outlives imaged.
exports() { local f; for f in "$run"/kerby/run/*.pid; do [ ! -e "$f" ] || end "$f" qemu-storage-daemon TERM; done; }

mounted() { grep -q " $(printf %s "$mount" | sed 's/ /\\\\040/g') fuse.xvmfs " /proc/self/mounts; }

down() {
    end "$run/xvmfs.pid" xvmfs TERM
    if mounted; then umount -l "$mount" 2>/dev/null || fusermount3 -uz "$mount"; fi
    end "$run/guests.pid" guestd TERM
    for name in ferby gerby herby; do end "$run/$name.pid" agentd TERM; done
    end "$run/kerby.pid" imaged TERM
    exports
    end "$run/forwarder.pid" xvm-forwarder TERM
    rm -rf "$run"
    [ -z "$made" ] || rmdir "$mount" 2>/dev/null
}

start() { # NAME PROGRAM ARGUMENTS...: in a session of its own, so that Ctrl-C reaches this script alone and it ends all in order
    local name=$1; shift
    setsid "$bin/$@" < /dev/null >> "$run/$name.log" 2>&1 &
    echo $! > "$run/$name.pid"
}

fail() { say "$*"; tail -n 5 "$run"/*.log 2>/dev/null; exit 1; }

mkdir -p -m 700 "$run" || exit 1
exec 9> "$run.lock"
flock -n 9 || { say "a demo runs on $mount already"; exit 1; }
trap 'exit 130' INT; trap 'exit 143' TERM HUP
trap 'trap "" INT TERM HUP; down' EXIT
# what a killed demo left
for name in xvmfs:xvmfs kerby:imaged guests:guestd ferby:agentd gerby:agentd herby:agentd forwarder:xvm-forwarder; do end "$run/${name%:*}.pid" "${name#*:}" TERM; done
exports
if mounted; then umount -l "$mount" 2>/dev/null || fusermount3 -uz "$mount"; fi
rm -rf "$run"; mkdir -m 700 "$run"; mkdir -p "$mount" || exit 1

start forwarder xvm-forwarder --name demo "$bus" 9>&-
for name in ferby gerby herby; do
    specs=(); [ $name != ferby ] || for i in 1 2 3 4 5; do specs+=(--domain small-$i); done
    start "$name" agentd --name "$name" --forwarder "$bus" --state "$run/$name" --cpus 4 --memory 16384 "${specs[@]}" 9>&-
done
# ports of this mount, so that two demos do not meet
port=$((20000 + $(printf %s "$mount" | cksum | cut -d" " -f1) % 200 * 50))
mkdir -p "$run/kerby/configs"
printf 'os = "tiny"\nmemory = 64\nswap = 16\ndisk = 64\naddress = "dhcp"\n' > "$run/kerby/configs/defaults.toml"
start kerby imaged --name kerby --forwarder "$bus" --state "$run/kerby" --boot-port $port --ports $((port + 1))-$((port + 49)) 9>&-
start guests guestd --simulated --forwarder "$bus" --heartbeat 1 9>&-
start xvmfs xvmfs --foreground "$bus" "$mount" -o tests="$run/tests" 9>&-
for t in $(seq 200); do
    [ "$(ls "$mount/domains" "$mount/servers" 2>/dev/null | grep -c "^small-\|erby$")" = 8 ] && grep -q "^images kerby up" "$mount/status" && break
    [ -d "/proc/$(cat "$run/xvmfs.pid")" ] || fail "xvmfs ended"
    [ "$t" != 200 ] || fail "the cluster did not come up in 10 s"
    sleep 0.05
done

# for watching: a heartbeat each second
for s in "$mount"/servers/*; do echo heartbeat 1 > "$s/ctl"; done
say "a cluster is mounted at $mount; in another shell try:"
cat <<EOF

    cat $mount/status
    echo pause > $mount/domains/small-1/ctl; cat $mount/domains/small-1/state
    mv $mount/servers/ferby/domains/small-1 $mount/servers/herby/domains/
    cat $mount/domains/small-1/wait
    tail -f $mount/events
    for i in 1 2 3 4 5; do echo load 100 300 > $mount/domains/small-\$i/ctl; done    # five busy domains, four CPUs:
    cat $mount/help/*/outcome                                                        # one moves by itself within some 10 s
    echo fibonacci 40 > $mount/domains/small-1/guest/run; cat $mount/domains/small-1/guest/result
    mkdir $mount/tests/evening; echo '0 small-* image 512' > $mount/tests/evening/schedule
    echo start > $mount/tests/evening/ctl; cat $mount/tests/evening/wait $mount/tests/evening/results
    mkdir $mount/configs/small-6; cat $mount/configs/small-6/wait                    # a machine is made,
    echo start > $mount/configs/small-6/ctl; cat $mount/configs/small-6/wait          # and runs

\$ cat $mount/status
EOF
cat "$mount/status"
say "Ctrl-C ends it; logs are in $run"
# no program is waited for in the foreground here: bash takes a Ctrl-C that comes then for that program's own, now and then
while :; do
    for pid in "$run"/*.pid; do
        read -r p < "$pid"
        if [ ! -d "/proc/$p" ]; then name=${pid##*/}; say "${name%.pid} ended, see its log"; mv "$pid" "$pid.ended"; fi
    done
    [ -e "$run/xvmfs.pid" ] || exit 1
    sleep 1 9>&- &   # without the lock: it outlives us by a moment
    wait $!
done
