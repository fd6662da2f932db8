// faye at /cometd, as its README has it.
'use strict';
const http = require('http');
const faye = require('faye');

const [host, port] = process.argv[2].split(':');
const server = http.createServer();
server.keepAliveTimeout = 0;
new faye.NodeAdapter({ mount: '/cometd', timeout: 45 }).attach(server);
server.listen({ host, port: Number(port), backlog: 4096 });
