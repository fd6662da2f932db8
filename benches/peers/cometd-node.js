// cometd-nodejs-server with its defaults, as its README has it. It has no WebSocket.
'use strict';
const http = require('http');
const cometd = require('cometd-nodejs-server');

const [host, port] = process.argv[2].split(':');
const server = http.createServer(cometd.createCometDServer().handle);
server.keepAliveTimeout = 0;
server.listen({ host, port: Number(port), backlog: 4096 });
