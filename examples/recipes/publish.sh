#!/bin/sh
# Publishes with curl, once, however often it has to try.
#   ./publish.sh http://127.0.0.1:8080 chat/room1 '{"text":"hello"}'     prints {"channel":"chat/room1","id":"…",…}
# FANWIRE_TOKEN holds a key or JWT if the server wants one. The fourth argument, or else a random one, is the key that makes a retry
# harmless: a try whose answer got lost is answered with its first id and "duplicate":true. Exit code 1 is a refusal, whose
# reason is printed; others are curl's.
set -eu
url=$1 channel=$2 payload=$3
key=${4:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# The token goes in by standard input: others can see arguments.
options=${FANWIRE_TOKEN:+header = \"Authorization: Bearer $FANWIRE_TOKEN\"}

# Without --fail a refusal is no error, so --retry-all-errors tries again after broken connections, 429 (when Retry-After says) and
# 5xx, but not after 4xx.
status=$(printf '%s\n' "$options" | curl --silent --show-error --config - --output "$answer" --write-out '%{http_code}' \
    --max-time 10 --retry 5 --retry-all-errors --retry-max-time 60 \
    --header 'Content-Type: application/json' --header "Idempotency-Key: $key" --data-binary "$payload" \
    "$url/v1/publish/$channel")
cat "$answer"
echo
[ "$status" = 200 ]
