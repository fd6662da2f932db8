#!/bin/sh
# Runs faye in the foreground until it gets SIGTERM.
#   faye.sh ADDRESS:PORT        needs: Node, and target/peers as benches/run.sh installs it
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
NODE_PATH=$folder/../../target/peers/node_modules exec node "$folder/faye.js" "${1:?address}"
