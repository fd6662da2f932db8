#!/bin/sh
# Runs nginx as a proxy of WebSockets in the foreground until it gets SIGTERM.
#   proxy.sh ADDRESS:PORT BACKEND:PORT        needs: apt-get install nginx
# One worker, no access log.
set -eu
address=${1:?address}
backend=${2:?backend}
folder=${TMPDIR:-/tmp}/fanwire-proxy-${address##*:}
rm -rf "$folder"
mkdir -p "$folder"
cat >"$folder/nginx.conf" <<CONF
pid $folder/nginx.pid;
error_log $folder/error.log warn;
worker_processes 1;
worker_rlimit_nofile 20000;
events { worker_connections 19900; }
http {
  access_log off;
  tcp_nodelay on;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  server {
    listen $address backlog=4096;
    location / {
      proxy_pass http://$backend;
      proxy_http_version 1.1;
      proxy_set_header Host \$host;
      proxy_set_header Upgrade \$http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_read_timeout 120s;
    }
  }
}
CONF
exec nginx -c "$folder/nginx.conf" -p "$folder" -g 'daemon off;'
