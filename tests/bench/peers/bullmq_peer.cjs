// BullMQ, 100 jobs at once, none kept. `fill` queues them in bulk.
"use strict";

const { Queue, Worker } = require("bullmq");
const fs = require("fs");

const [host, port] = process.env.BENCH_REDIS.split(":");
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const count = Number(process.env.BENCH_COUNT);
const body = "x".repeat(Number(process.env.BENCH_BODY_BYTES));
const atOnce = 100;

async function fill() {
  const queue = new Queue("events", { connection });
  for (let at = 0; at < count; at += atOnce) {
    const jobs = Array.from({ length: atOnce }, () => ({ name: "event", data: body, opts: { removeOnComplete: true } }));
    await queue.addBulk(jobs);
  }
  await queue.close();
}

function work() {
  let seen = 0;
  let began = 0;
  new Worker(
    "events",
    async () => {
      if (!seen) began = performance.now();
      seen += 1;
      if (seen === count) {
        fs.writeFileSync(process.env.BENCH_RESULT, JSON.stringify({ seconds: (performance.now() - began) / 1000 }));
      }
    },
    { connection, concurrency: atOnce },
  );
}

process.argv[2] === "fill" ? fill() : work();
