#!/usr/bin/env bash
# Certificates for Redis over TLS: an authority, one for the servers, one for its clients.
#
#   ./generate-redis-certs.sh [-o DIRECTORY] [-d DAYS] [HOST ...]
#
# HOST are the names and addresses under which the servers are reached; without any, those of this machine.
# Writes ca.crt, ca.key, redis.crt, redis.key, client.crt and client.key. An authority that is there already
# is kept: running it again renews the other two pairs. Needs nothing but openssl.
#
# Redis:   tls-port 6379 / port 0 / tls-ca-cert-file ca.crt / tls-cert-file redis.crt / tls-key-file redis.key
# Clients: REDIS_TLS_ENABLED=true REDIS_TLS_CA_FILE=ca.crt REDIS_TLS_CERT_FILE=client.crt REDIS_TLS_KEY_FILE=client.key
set -euo pipefail

usage() {
  sed -n '2,11s/^# \{0,1\}//p' "$0"
  exit "$1"
}

directory=.
days=365
while getopts "o:d:h" option; do
  case "$option" in
    o) directory=$OPTARG ;;
    d) days=$OPTARG ;;
    h) usage 0 ;;
    *) usage 2 ;;
  esac
done
shift $((OPTIND - 1))
[[ $days =~ ^[0-9]+$ ]] || { echo "generate-redis-certs: -d takes a number of days" >&2; exit 2; }
command -v openssl > /dev/null || { echo "generate-redis-certs: openssl is needed" >&2; exit 1; }

hosts=("$@")
[ ${#hosts[@]} -gt 0 ] || hosts=(localhost 127.0.0.1 "$(hostname)")

umask 077
mkdir -p "$directory"
cd "$directory"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

# One "DNS:name" or "IP:address" for each host, with commas.
names() {
  local list=() host
  for host in "${hosts[@]}"; do
    if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then list+=("IP:$host"); else list+=("DNS:$host"); fi
  done
  local IFS=,
  echo "${list[*]}"
}

# pair NAME USAGE [SAN]: NAME.crt and NAME.key, in their place only when both are good.
pair() {
  key "$work/$1.key"
  {
    echo "basicConstraints=critical,CA:false"
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=$2"
    if [ -n "${3:-}" ]; then echo "subjectAltName=$3"; fi
  } > "$work/$1.ext"
  openssl req -new -key "$work/$1.key" -subj "/CN=$1" -out "$work/$1.csr"
  openssl x509 -req -in "$work/$1.csr" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
    -days "$days" -sha256 -extfile "$work/$1.ext" -out "$work/$1.crt" 2> /dev/null
  openssl verify -CAfile ca.crt "$work/$1.crt" > /dev/null
  mv "$work/$1.key" "$work/$1.crt" .
  chmod 644 "$1.crt"
}

if [ ! -f ca.crt ] || [ ! -f ca.key ]; then
  key ca.key
  openssl req -x509 -new -key ca.key -subj "/CN=Webhook System Redis" -days 3650 -sha256 -out ca.crt \
    -addext "basicConstraints=critical,CA:true,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"
  chmod 644 ca.crt
fi
# Replicas and Sentinels are clients of other servers, with the same certificate.
pair redis serverAuth,clientAuth "$(names)"
pair client clientAuth

echo "in $(pwd): ca.crt redis.crt redis.key client.crt client.key (and ca.key: keep it away from the servers)"
