#!/bin/sh
# certificates.sh DIR IMAGED HOST SERVER... - the certificates of a cluster whose disks are served by TLS (imaged --tls).
#
# IMAGED is the name of the server of imaged, HOST the name or address by which servers reach its exports (its --host), the others
# are the servers that run domains. Made are
#
#   DIR/ca-key.pem         the key of the cluster's own authority: keep it where no server is; with it new servers can be added
#   DIR/IMAGED/            for imaged --tls, on its machine
#   DIR/SERVER/            for /etc/pki/libvirt-nbd of that server (nbd_tls_x509_cert_dir of /etc/libvirt/qemu.conf)
#
# What is there already stays. A server's certificate is its name and nothing else: imaged lets in CN=SERVER while it holds a lease.
set -eu
[ $# -ge 3 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
dir=$1 imaged=$2 host=$3
shift 3
umask 077
mkdir -p "$dir"
cd "$dir"
years=3650 curve='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ssl() { # ARGUMENT...: what openssl says is shown when it fails
    openssl "$@" 2> "$work/said" || { echo "certificates.sh: openssl $1 failed:" >&2; cat "$work/said" >&2; exit 1; }
}

# shellcheck disable=SC2086 # $curve is several words
[ -e ca-cert.pem ] || ssl req -x509 $curve -keyout ca-key.pem -out ca-cert.pem -days $years -subj "/CN=xvm cluster"

make() { # NAME KIND EXTENSIONS: a key and its certificate, which comes last
    [ -e "$1/$2-cert.pem" ] && return
    mkdir -p "$1"
    printf '%s\n' "$3" > "$work/ext"
    # shellcheck disable=SC2086
    ssl req $curve -keyout "$1/$2-key.pem" -out "$work/csr" -subj "/CN=$1"
    ssl x509 -req -in "$work/csr" -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days $years -extfile "$work/ext" -out "$work/cert"
    cp ca-cert.pem "$1/ca-cert.pem"
    mv "$work/cert" "$1/$2-cert.pem"
}

case $host in
    *:*) name=IP ;;
    *[!0-9.]*) name=DNS ;; # abc.de too
    *) name=IP ;;
esac
make "$imaged" server "subjectAltName=$name:$host
extendedKeyUsage=serverAuth"
for server; do
    make "$server" client "extendedKeyUsage=clientAuth"
done
