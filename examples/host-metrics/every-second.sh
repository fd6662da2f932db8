#!/bin/sh
# Runs publish.sh once a second, as a timer would; the arguments are its own. Ends with the server, or with Ctrl-C.
set -eu
while "$(dirname "$0")/publish.sh" "$@"; do
    sleep 1
done
