#!/bin/sh
# Runs nginx with nchan in the foreground until it gets SIGTERM.
#   nchan.sh ADDRESS:PORT [_ _ _ _ CERT KEY]        needs: apt-get install nginx libnginx-mod-nchan
# With a certificate and its key it speaks TLS, with the least buffer that nginx has for it.
# One worker, no access log, a ring of 64 messages per channel so that bursts are not cut.
set -eu
address=${1:?address}
ssl=
tls=
if [ -n "${6:-}" ]; then
    ssl=ssl
    tls="ssl_certificate $6; ssl_certificate_key $7; ssl_session_cache shared:tls:50m; ssl_buffer_size 4k;"
fi
folder=${TMPDIR:-/tmp}/fanwire-nchan-${address##*:}
rm -rf "$folder"
mkdir -p "$folder"
cat >"$folder/nginx.conf" <<CONF
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
pid $folder/nginx.pid;
error_log $folder/error.log warn;
worker_processes 1;
worker_rlimit_nofile 20000;
events { worker_connections 19900; }
http {
  access_log off;
  tcp_nodelay on;
  keepalive_timeout 3600;
  keepalive_requests 100000000;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  nchan_shared_memory_size 256M;
  nchan_message_buffer_length 64;
  server {
    listen $address $ssl backlog=4096;
    $tls
    location ~ ^/sub/(.+)\$ { nchan_subscriber eventsource; nchan_channel_id \$1; }
    location ~ ^/pub/(.+)\$ { nchan_publisher; nchan_channel_id \$1; }
  }
}
CONF
exec nginx -c "$folder/nginx.conf" -p "$folder" -g 'daemon off;'
