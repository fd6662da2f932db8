#!/bin/sh
# Runs rumqttd in the foreground until it gets SIGTERM.
#   rumqttd.sh ADDRESS:PORT _ _ TRANSPORT        needs: cargo install --locked rumqttd --root target/peers
# TRANSPORT is tcp (MQTT 3.1.1) or websocket; a level 5 listener of its own is not set up.
set -eu
address=${1:?address}
folder=$(cd "$(dirname "$0")/../.." && pwd)
config=${TMPDIR:-/tmp}/fanwire-rumqttd-${address##*:}.toml
kind=v4
[ "${4:-tcp}" = websocket ] && kind=ws
cat >"$config" <<CONF
id = 0

[router]
id = 0
max_connections = 20000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[$kind.1]
name = "$kind-1"
listen = "$address"
next_connection_delay_ms = 0

[$kind.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 1000
dynamic_filters = true
CONF
exec "$folder/target/peers/bin/rumqttd" --config "$config" --quiet
