#!/bin/sh
# Measures every row of benches/RESULTS.md and keeps what the commands print under target/results.
#   benches/run.sh [ROW...]      default: all rows, about 70 minutes on two quiet cores
#
#   row        minutes   what it shows
#   machine          0   date, processor, versions
#   fanout           7   1 x 10,000 single and burst, 1,000 x 10: floor, Fanwire (SSE), nchan
#   mqtt            14   10,000 MQTT subscribers, QoS 0 and 1, 3.1.1 and 5, TCP and WebSocket, beside mosquitto, rumqttd, NATS
#   bayeux           5   10,000 Bayeux subscribers, WebSocket and long-polling, beside faye and cometd-nodejs-server at 1,000
#   http             5   HTTP publish and SSE beside nchan and pushpin
#   fronts           6   the three fan-out rows of every front against the floor
#   storm            5   connect storms and mass disconnects, SSE and MQTT
#   tls              8   fan-out and idle memory inside of TLS beside nchan and mosquitto; 10,000 handshakes as a storm
#   idle             5   memory per idle connection of every front
#   slow             4   1 % of 10,000 subscribers never read
#   publish          3   HTTP publish against a bare hyper handler and nchan; `ring` keeps as much as nchan is set to
#   latency          3   open loop
#   core             3   criterion: publish, matching, subscribe
#   callgrind        2   user instructions per delivery (any load of the machine)
#
# All targets of one command take turns (A B A B). The server is pinned to CPU 0, the clients to CPU 1. A shorter run to see
# that everything works: ROUNDS=1 SUBSCRIBERS=1000 benches/run.sh ROW
#
# Needs valgrind, iproute2 (ss), and of Debian: nginx libnginx-mod-nchan mosquitto nats-server pushpin; Node for faye and
# cometd-nodejs-server, which are installed below target/peers, as is rumqttd. A peer that is missing is left out.
set -eu
cd "$(dirname "$0")/.."
results=target/results
peers=target/peers
load=target/release/fanwire-load
subscribers=${SUBSCRIBERS:-10000}
mkdir -p "$results" "$peers"
rows=${*:-machine fanout mqtt bayeux http fronts storm tls idle slow publish latency core callgrind}

cargo build --release -p fanwire -p fanwire-load -p fanwire-benches

install_peers() {
    if command -v npm >/dev/null && ! cmp -s benches/peers/package-lock.json "$peers/package-lock.json"; then
        cp benches/peers/package.json benches/peers/package-lock.json "$peers/"
        npm ci --prefix "$peers" --no-audit --no-fund --silent || rm "$peers/package-lock.json"
    fi
    # Without --locked: the lock file it ships names a version of `metrics` that Rust 1.89 and later refuse.
    [ -x "$peers/bin/rumqttd" ] || cargo install --quiet rumqttd --version 0.20.0 --root "$peers" \
        --no-default-features --features websocket || echo "rumqttd does not build; left out" >&2
}

# `--target NAME` for each name whose server is installed.
targets() {
    for name in "$@"; do
        case ${name#tls+} in
        mosquitto*) command -v mosquitto >/dev/null || continue ;;
        nats) command -v nats-server >/dev/null || continue ;;
        nchan) command -v nginx >/dev/null || continue ;;
        pushpin) command -v pushpin >/dev/null || continue ;;
        rumqttd*) [ -x "$peers/bin/rumqttd" ] || continue ;;
        faye* | cometd-node*) [ -d "$peers/node_modules" ] || continue ;;
        esac
        printf ' --target %s' "$name"
    done
}

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
        run machine sh -c 'grep -m1 "model name" /proc/cpuinfo; nproc; ulimit -Hn; rustc --version'
        run machine sh -c 'dpkg-query -W nginx-core libnginx-mod-nchan mosquitto nats-server pushpin; node --version' || true
        run machine git rev-parse --short HEAD
        ;;
    fanout)
        run fanout $load compare --rounds ${ROUNDS:-5} --spin $(targets floor fanwire nchan)
        ;;
    mqtt)
        install_peers
        for qos in "" -qos1; do
            run mqtt $load fanout --rounds ${ROUNDS:-5} --spin --subscribers "$subscribers" \
                $(targets floor fanwire-mqtt$qos mosquitto$qos rumqttd$qos)
        done
        run mqtt $load fanout --rounds ${ROUNDS:-3} --spin --subscribers "$subscribers" \
            $(targets floor fanwire-mqtt5 mosquitto5 fanwire-mqtt5-qos1 mosquitto5-qos1 fanwire-mqtt5-ws-qos1 nats)
        run mqtt $load fanout --rounds ${ROUNDS:-3} --spin --subscribers "$subscribers" --window 16 --messages 240 \
            $(targets floor fanwire-mqtt mosquitto rumqttd nats fanwire-mqtt-qos1 mosquitto-qos1 rumqttd-qos1)
        run mqtt $load compare --rounds ${ROUNDS:-3} --spin --rows channels \
            $(targets floor fanwire-mqtt mosquitto fanwire-mqtt-qos1 mosquitto-qos1)
        ;;
    bayeux)
        install_peers
        run bayeux $load fanout --rounds ${ROUNDS:-5} --subscribers "$subscribers" \
            --at-most faye-ws=1000 --at-most faye-lp=1000 --at-most cometd-node-lp=1000 \
            $(targets floor fanwire-bayeux-ws faye-ws fanwire-bayeux-lp faye-lp cometd-node-lp \
                fanwire-bayeux-ws-ack fanwire-bayeux-lp-ack)
        ;;
    http)
        # Above a few hundred subscribers pushpin cancels some while they open, whatever the pace.
        run http $load fanout --rounds ${ROUNDS:-5} --subscribers "$subscribers" --at-most pushpin=200 \
            $(targets floor fanwire nchan pushpin)
        run http $load fanout --rounds ${ROUNDS:-3} --subscribers 200 $(targets floor fanwire nchan pushpin)
        run http $load publish --rounds ${ROUNDS:-3} --messages 20000 $(targets fanwire nchan pushpin)
        ;;
    fronts)
        run fronts $load compare --rounds ${ROUNDS:-3} --spin \
            $(targets floor fanwire-mqtt fanwire-mqtt-ws fanwire-bayeux-ws)
        ;;
    storm)
        run storm $load storm --rounds ${ROUNDS:-7} --connections "$subscribers" $(targets nchan floor fanwire)
        run storm $load storm --rounds ${ROUNDS:-3} --connections "$subscribers" \
            $(targets nats fanwire-mqtt mosquitto fanwire-mqtt-ws)
        run storm $load storm --connections 19000 --cycles 20 --time-limit 300 --target fanwire
        ;;
    tls)
        run tls $load fanout --rounds ${ROUNDS:-3} --spin --subscribers "$subscribers" \
            $(targets tls+floor tls+fanwire tls+nchan tls+fanwire-mqtt tls+mosquitto tls+fanwire-bayeux-ws)
        run tls $load idle --rounds ${ROUNDS:-3} --connections "$subscribers" \
            $(targets tls+fanwire tls+nchan tls+fanwire-mqtt tls+mosquitto tls+fanwire-bayeux-ws)
        run tls $load handshakes --rounds ${ROUNDS:-3} --connections "$subscribers" \
            $(targets tls+fanwire tls+nchan tls+mosquitto)
        run tls $load handshakes --in-flight-connects 10000 --connections "$subscribers" $(targets tls+fanwire)
        ;;
    idle)
        run idle $load idle --rounds ${ROUNDS:-3} --connections "$subscribers" \
            $(targets fanwire fanwire-mqtt fanwire-mqtt-ws fanwire-bayeux-ws fanwire-bayeux-lp nchan mosquitto nats)
        ;;
    slow)
        run slow $load slow --rounds ${ROUNDS:-3} --subscribers "$subscribers" --messages 200 \
            $(targets fanwire fanwire-mqtt fanwire-bayeux-ws)
        run slow $load slow --subscribers 1000 --payload 8192 --messages 400 $(targets fanwire nchan fanwire-mqtt mosquitto)
        ;;
    publish)
        run publish $load publish --rounds ${ROUNDS:-7} --target 'bare-hyper:sse=target/release/bare-hyper {address}' \
            --target 'ring:sse=env FANWIRE_LOG_MAX_BYTES=262144 target/release/fanwire --http {address} --mqtt off' \
            $(targets fanwire nchan)
        ;;
    latency)
        run latency $load open-loop --rounds ${ROUNDS:-3} --subscribers 1000 --rate 20 --messages 200 \
            $(targets floor fanwire nchan fanwire-mqtt mosquitto)
        run latency $load open-loop --rounds ${ROUNDS:-3} --subscribers "$subscribers" --rate 5 --messages 100 \
            $(targets floor fanwire nchan)
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
