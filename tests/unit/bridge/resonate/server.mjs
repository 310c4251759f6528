// The same as server.py, with Resonate's other server in memory; its module is the argument.

import { createServer } from "node:http";

const { LocalNetwork } = await import(process.argv[2]);
let now = 0;
let network = new LocalNetwork();
Date.now = () => now; // what it asks for the time

const answer = async (url, body) => {
  if (url === "/clock") now = Number(body);
  else if (url === "/forget") network = new LocalNetwork();
  else return JSON.stringify(await network.send(JSON.parse(body)));
  return "";
};

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  response.setHeader("Content-Type", "application/json");
  response.end(await answer(request.url, Buffer.concat(parts).toString()));
});
server.keepAliveTimeout = 0;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
