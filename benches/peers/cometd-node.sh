#!/bin/sh
# Runs cometd-nodejs-server in the foreground until it gets SIGTERM.
#   cometd-node.sh ADDRESS:PORT        needs: Node, and target/peers as benches/run.sh installs it
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
NODE_PATH=$folder/../../target/peers/node_modules exec node "$folder/cometd-node.js" "${1:?address}"
