#!/bin/sh
# Measures every row of benches/RESULTS.md and keeps what the commands print under target/results.
#   benches/run.sh [ROW...]      rows: machine fanout fronts storm idle slow publish latency core callgrind; default all
# About 25 minutes on two cores. Needs: valgrind, iproute2 (ss), nginx and libnginx-mod-nchan (Debian).
set -eu
cd "$(dirname "$0")/.."
results=target/results
load=target/release/fanwire-load
mkdir -p "$results"
rows=${*:-machine fanout fronts storm idle slow publish latency core callgrind}

cargo build --release -p fanwire -p fanwire-load -p fanwire-benches

# First in line for the CPUs, where that is allowed: other jobs then disturb little but caches. With autogroup a
# process's own nice value counts within its session only.
renice -n -20 -p $$ >/dev/null 2>&1 || true
if echo -20 >/proc/$$/autogroup; then
    trap 'echo 0 >/proc/$$/autogroup' EXIT
fi 2>/dev/null

run() { # name, command...
    name=$1
    shift
    { echo "\$ $*" && "$@" && echo; } 2>&1 | tee -a "$results/$name.txt"
}

for row in $rows; do
    echo "# $row, load average $(cut -d' ' -f1-3 /proc/loadavg)" | tee "$results/$row.txt"
    case $row in
    machine)
        run machine date -u +%F
        run machine uname -srm
        run machine sh -c 'grep -m1 "model name" /proc/cpuinfo; nproc; ulimit -Hn; rustc --version; nginx -v'
        run machine git rev-parse --short HEAD
        ;;
    fanout)
        run fanout $load compare --rounds 5 --spin --target floor --target fanwire --target nchan
        run fanout $load compare --rounds 5 --target floor --target fanwire
        ;;
    fronts)
        run fronts $load compare --rounds 3 --spin --target floor --target fanwire-mqtt --target fanwire-mqtt-ws \
            --target fanwire-bayeux-ws
        ;;
    storm)
        run storm $load storm --rounds 7 --target floor --target nchan --target fanwire
        run storm $load storm --connections 19000 --cycles 20 --time-limit 300 --target fanwire
        ;;
    idle)
        run idle $load idle --rounds 5 --target fanwire
        run idle $load idle --rounds 3 --target fanwire-mqtt --target fanwire-mqtt-ws --target fanwire-bayeux-ws --target nchan
        ;;
    slow)
        run slow $load slow --rounds 3 --messages 200 --target fanwire
        run slow $load slow --subscribers 1000 --payload 8192 --messages 400 --target fanwire --target nchan
        ;;
    publish)
        run publish $load publish --rounds 7 --target 'bare-hyper:sse=target/release/bare-hyper {address}' \
            --target fanwire --target nchan
        ;;
    latency)
        run latency $load open-loop --rounds 3 --subscribers 1000 --rate 20 --messages 200 --target floor \
            --target fanwire --target nchan
        run latency $load open-loop --rounds 3 --rate 5 --messages 100 --target floor --target fanwire --target nchan
        ;;
    core)
        for bench in publish matching subscribe; do
            run core cargo bench -p fanwire-benches --bench $bench -- --noplot
        done
        ;;
    callgrind)
        run callgrind benches/callgrind.sh
        ;;
    *)
        echo "unknown row $row" >&2
        exit 2
        ;;
    esac
done
