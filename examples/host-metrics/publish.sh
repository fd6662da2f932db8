#!/bin/sh
# Publishes this machine's figures once and ends: a backend that lives for milliseconds and holds no connection.
#
# Run: examples/host-metrics/publish.sh [http://127.0.0.1:8080] [host/metrics]
# See: curl -N http://127.0.0.1:8080/sse/host/metrics   or the page at http://127.0.0.1:8080/
set -eu
server=${1:-http://127.0.0.1:8080}
channel=${2:-host/metrics}

# CPU time since the start, in ticks: who listens takes the difference of two messages.
cpu=$(awk '/^cpu / { busy = $2 + $3 + $4 + $7 + $8 + $9; printf "{\"busy_ticks\":%d,\"idle_ticks\":%d}", busy, $5 + $6 }' /proc/stat)
load=$(awk '{ printf "{\"1m\":%s,\"5m\":%s,\"15m\":%s}", $1, $2, $3 }' /proc/loadavg)
memory=$(awk '
    /^MemTotal:/ { total = $2 } /^MemAvailable:/ { available = $2 }
    END { printf "{\"total_kib\":%d,\"available_kib\":%d,\"used_percent\":%.1f}", total, available, 100 * (total - available) / total }' /proc/meminfo)
# All interfaces but the loopback; counters since the start, as above.
network=$(awk -F'[: ]+' '
    NR > 2 { sub(/^ +/, "") } NR > 2 && $1 != "lo" { received += $2; sent += $10 }
    END { printf "{\"received_bytes\":%.0f,\"sent_bytes\":%.0f}", received, sent }' /proc/net/dev)
uptime=$(cut -d' ' -f1 /proc/uptime)
sockets=$(awk '/^TCP:/ { print $3 }' /proc/net/sockstat)

curl --silent --show-error --fail --output /dev/null --max-time 5 \
    --header 'Content-Type: application/json' \
    --data "{\"host\":\"$(uname -n)\",\"load\":$load,\"memory\":$memory,\"cpu\":$cpu,\"network\":$network,\"tcp_sockets\":$sockets,\"uptime_secs\":$uptime}" \
    "$server/v1/publish/$channel?retain=true&ttl=60"
