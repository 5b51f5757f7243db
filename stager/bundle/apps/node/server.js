// A sample app: it says who and where it is, logs its requests, and ends when asked to.
'use strict';

const http = require('node:http');
const os = require('node:os');
const ms = require('ms');
const msVersion = require('ms/package.json').version;

function user() {
  try {
    return os.userInfo().username;
  } catch {
    return String(process.getuid()); // No name for this uid.
  }
}

function whoAmI() {
  return {
    instance_index: Number(process.env.INSTANCE_INDEX ?? process.env.CF_INSTANCE_INDEX ?? -1),
    instance_guid: process.env.INSTANCE_GUID ?? process.env.CF_INSTANCE_GUID ?? '',
    user: user(),
    uid: process.getuid(),
    hostname: os.hostname(),
    node: process.version,
    ms: msVersion,
    uptime: ms(Math.round(process.uptime() * 1000)),
  };
}

function answer(response, status, type, body) {
  response.writeHead(status, { 'content-type': type });
  response.end(body);
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://app');
  console.log(`${request.method} ${url.pathname} from ${request.socket.remoteAddress}`);
  switch (url.pathname) {
    case '/':
      return answer(response, 200, 'application/json', JSON.stringify(whoAmI()) + '\n');
    case '/health':
      return answer(response, 200, 'text/plain', 'ok\n');
    case '/exit': {
      const code = Number.parseInt(url.searchParams.get('code') ?? '1', 10) & 255;
      console.error(`asked to exit with code ${code}`);
      response.on('finish', () => process.exit(code));
      return answer(response, 200, 'text/plain', `exiting with ${code}\n`);
    }
    default:
      return answer(response, 404, 'text/plain', 'no such page\n');
  }
});

process.on('SIGTERM', () => {
  console.log('asked to stop');
  server.close(() => process.exit(0));
  server.closeAllConnections();
});

const port = Number(process.env.PORT ?? 8080);
server.listen(port, '0.0.0.0', () => console.log(`listening on port ${server.address().port}`));
