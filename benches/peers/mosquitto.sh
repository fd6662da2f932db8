#!/bin/sh
# Runs mosquitto in the foreground until it gets SIGTERM.
#   mosquitto.sh ADDRESS:PORT _ _ TRANSPORT _ [CERT KEY]     needs: apt-get install mosquitto; TRANSPORT is tcp or websocket
# No persistence, everyone may connect, queues long enough that bursts are not cut, no limit on what is in flight.
# With a certificate and its key it speaks TLS. As root it would take another user, who may not read them.
# Debian builds mosquitto without WebSocket: there the last argument can only be tcp.
set -eu
address=${1:?address}
config=${TMPDIR:-/tmp}/fanwire-mosquitto-${address##*:}.conf
protocol=mqtt
[ "${4:-tcp}" = websocket ] && protocol=websockets
tls=
[ -z "${6:-}" ] || tls="certfile $6
keyfile $7"
cat >"$config" <<CONF
user $(id -un)
listener ${address##*:} ${address%:*}
protocol $protocol
allow_anonymous true
persistence false
log_type error
max_queued_messages 10000
max_inflight_messages 0
set_tcp_nodelay true
$tls
CONF
exec mosquitto -c "$config"
