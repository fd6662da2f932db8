#!/bin/sh
# Runs nats-server in the foreground until it gets SIGTERM, as a server of MQTT over WebSocket.
#   nats-mqtt.sh ADDRESS:PORT CLIENT_ADDRESS:PORT        needs: apt-get install nats-server
set -eu
address=${1:?address}
client=${2:?address for its own clients}
folder=${TMPDIR:-/tmp}/fanwire-nats-mqtt-${address##*:}
rm -rf "$folder"
mkdir -p "$folder"
cat >"$folder/nats.conf" <<CONF
server_name: peer
listen: $client
max_connections: 30000
max_pending: 256MB
logfile: /dev/null
jetstream { store_dir: "$folder/js" }
websocket { listen: "$address", no_tls: true }
mqtt { listen: "127.0.0.1:-1" }
CONF
exec "${NATS_SERVER:-nats-server}" -c "$folder/nats.conf"
