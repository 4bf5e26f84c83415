// What most people would write on Node: Fastify, @octokit/webhooks for the signature, BullMQ as the queue.
// BullMQ recognises a delivery that comes again by its job id. Started with the port as its argument.
"use strict";

const { Webhooks } = require("@octokit/webhooks");
const { Queue } = require("bullmq");
const fastify = require("fastify");

const [host, port] = process.env.REDIS_ADDRESSES.split(":");
const webhooks = new Webhooks({ secret: process.env.GITHUB_WEBHOOK_SECRET });
const queue = new Queue("node-events", { connection: { host, port: Number(port) } });
const app = fastify({ bodyLimit: 25 * 1024 * 1024 });

// The signature is over the bytes as they came.
app.addContentTypeParser("application/json", { parseAs: "string" }, (_, body, done) => done(null, body));

app.post("/webhooks/github", async (request, reply) => {
  const { headers, body } = request;
  if (!(await webhooks.verify(body, headers["x-hub-signature-256"] ?? ""))) {
    return reply.code(401).send({ error: "refused" });
  }
  const id = headers["x-github-delivery"];
  await queue.add(headers["x-github-event"], body, { jobId: id });
  return reply.code(202).send({ event_id: id, status: "accepted" });
});

app.listen({ host: "127.0.0.1", port: Number(process.argv[2]) });
