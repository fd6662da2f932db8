#!/bin/sh
# User instructions per delivery, counted by callgrind: repeats within about 1 % at any load of the machine.
#   benches/callgrind.sh [SUBSCRIBERS] [MESSAGES] [OUTPUT_FOLDER]      defaults: 10000 20 target/callgrind
# Needs valgrind, and target/release/{fanwire,fanwire-load}. Counting is on during the measured messages only.
# Afterwards: callgrind_annotate --auto=no OUTPUT_FOLDER/single.out.1 (and burst.out.1).
set -eu
cd "$(dirname "$0")/.."
subscribers=${1:-10000}
messages=${2:-20}
folder=${3:-target/callgrind}
program=${PROGRAM:-target/release/fanwire --http {address\} --mqtt 127.0.0.1:{port2\}}
mkdir -p "$folder"

count() { # name, messages in flight, messages
    rm -f "$folder/$1".out*
    report=$(target/release/fanwire-load fanout --json --time-limit 600 \
        --subscribers "$subscribers" --window "$2" --messages "$3" --warm-up "$2" \
        --target "callgrind:${DIALECT:-sse}=valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file=$folder/$1.out $program" \
        --before 'callgrind_control -i on {pid}' \
        --after 'callgrind_control --dump {pid} && callgrind_control -i off {pid}')
    deliveries=$(printf '%s\n' "$report" | sed -n 's/.*"deliveries":\([0-9]*\).*/\1/p')
    instructions=$(sed -n 's/^totals: \([0-9]*\).*/\1/p' "$folder/$1.out.1")
    echo "$1 ($2 in flight, $subscribers subscribers): $instructions instructions / $deliveries deliveries =" \
        "$((instructions / deliveries)) per delivery"
}

count single 1 "$messages"
count burst 16 "$((messages * 4))"
