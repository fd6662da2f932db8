#!/bin/sh
# Runs our own server in Pushpin's place until it gets SIGTERM, with an origin that holds every stream.
#   grip.sh ADDRESS:PORT CONTROL:PORT ORIGIN:PORT _ FANWIRE_LOAD        the binary is the one beside FANWIRE_LOAD
set -eu
address=${1:?address}
control=${2:?control address}
origin=${3:?origin address}
load=${5:?fanwire-load}
folder=${TMPDIR:-/tmp}/fanwire-grip-${address##*:}
rm -rf "$folder"
mkdir -p "$folder"
cat >"$folder/fanwire.toml" <<CONF
[gateway.grip]
control_address = "$control"

[[gateway.routes]]
id = "load"
dialect = "grip"
path = "/stream/**"
origin = "http://$origin"
CONF
"$load" origin "$origin" &
exec "$(dirname "$load")/fanwire" --http "$address" --mqtt 127.0.0.1:0 --config "$folder/fanwire.toml"
