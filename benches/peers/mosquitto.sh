#!/bin/sh
# Runs mosquitto in the foreground until it gets SIGTERM.
#   mosquitto.sh ADDRESS:PORT        needs: apt-get install mosquitto
# No persistence, everyone may connect, queues long enough that bursts are not cut.
set -eu
address=${1:?address}
config=${TMPDIR:-/tmp}/fanwire-mosquitto-${address##*:}.conf
cat >"$config" <<CONF
listener ${address##*:} ${address%:*}
allow_anonymous true
persistence false
log_type error
max_queued_messages 10000
max_inflight_messages 0
CONF
exec mosquitto -c "$config"
