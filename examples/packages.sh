#!/bin/sh
# packages.sh NAME...: installs those of the named Debian packages that are missing; says what it does, and nothing when all are there.
set -eu
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

# those of the named packages that are not installed
missing() {
    for p in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf ' %s' "$p"
    done
}

# apt takes away one of them when it was of a later release than what is installed now breaks with: it comes back in the next round
for round in 1 2 3; do
    missing=$(missing "$@")
    [ -n "$missing" ] || exit 0
    echo "installing$missing"
    [ "$round" -gt 1 ] || $sudo apt-get update -qq
    # shellcheck disable=SC2086  # words on purpose
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
done
missing=$(missing "$@")
[ -z "$missing" ] || { echo "packages.sh: cannot be installed together with the others:$missing" >&2; exit 1; }
