#!/bin/sh
# Runs pushpin in the foreground until it gets SIGTERM, with an origin that holds every stream.
#   pushpin.sh ADDRESS:PORT CONTROL:PORT ORIGIN:PORT _ FANWIRE_LOAD        needs: apt-get install pushpin
# PUSHPIN_ROUTE is another target than that origin, which is not started then; PUSHPIN_ROOT where the package is unpacked.
# One worker, limits far above what the runs need, zurl allowed to reach 127.0.0.1, no log.
set -eu
address=${1:?address}
control=${2:?control address}
origin=${3:?origin address}
load=${5:?fanwire-load}
root=${PUSHPIN_ROOT:-}
folder=${TMPDIR:-/tmp}/fanwire-pushpin-${address##*:}
rm -rf "$folder"
mkdir -p "$folder/run" "$folder/log" "$folder/lib"
cp -r "$root/usr/lib/pushpin/." "$folder/lib"
# The default denies 127.*, where the origin is.
sed -i -e 's/^deny=.*/deny=/' -e 's/^max_open_requests=.*/max_open_requests=20000/' "$folder/lib/runner/zurl.conf.template"
sed -i -e "s#ipc:///var/run/zurl/#ipc://$folder/run/pp-#g" "$folder/lib/internal.conf"
cp -r "$root/etc/pushpin/runner" "$folder/runner"
echo "* ${PUSHPIN_ROUTE:-$origin}" >"$folder/routes"
cat >"$folder/pushpin.conf" <<CONF
[global]
include=$folder/lib/internal.conf
libdir=$folder/lib
rundir=$folder/run
ipc_prefix=pp-
port_offset=0

[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port=$address
logdir=$folder/log
log_level=0
client_buffer_size=8192
client_maxconn=25000

[proxy]
routesfile=$folder/routes
updates_check=off
stats_connection_ttl=120

[handler]
push_in_spec=ipc://$folder/run/push-in
push_in_sub_specs=ipc://$folder/run/push-in-sub
push_in_http_addr=${control%:*}
push_in_http_port=${control##*:}
command_spec=ipc://$folder/run/command
stats_spec=ipc://$folder/run/stats
message_rate=1000000
message_hwm=1000000
message_wait=5000
CONF
[ -n "${PUSHPIN_ROUTE:-}" ] || "$load" origin "$origin" &
[ -z "$root" ] || export PATH="$root/usr/bin:$PATH" LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu"
exec pushpin --config="$folder/pushpin.conf"
