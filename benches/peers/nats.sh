#!/bin/sh
# Runs nats-server in the foreground until it gets SIGTERM.
#   nats.sh ADDRESS:PORT        needs: apt-get install nats-server
set -eu
address=${1:?address}
config=${TMPDIR:-/tmp}/fanwire-nats-${address##*:}.conf
cat >"$config" <<CONF
listen: $address
max_connections: 30000
max_pending: 256MB
logfile: /dev/null
CONF
exec "${NATS_SERVER:-nats-server}" -c "$config"
