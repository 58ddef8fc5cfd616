// Whether the deployment can serve, what waits, and what it allows.

import { bytes, h, number, table, tiles } from "./elements.js";
import { get } from "./service.js";

export async function healthView(_, signal) {
  const [ready, limits] = await Promise.all([
    get("/health/ready", { signal }).catch((error) => ({ status: error.message, checks: {}, workers: {}, rollouts: {} })),
    get("/v1/limits", { signal }),
  ]);
  const isReady = ready.status === "ready";
  const workers = Object.entries(ready.workers || {});
  const rollouts = ready.rollouts || {};
  return h("div", null,
    h("h1", null, "Health"),
    h("p", { class: isReady ? "good" : "bad" }, isReady ? "Ready: requests are served." : `Not ready: ${ready.status}`),
    tiles(Object.entries(ready.checks || {}).map(([name, found]) => [name, found])),
    h("h2", null, "Workers"),
    workers.some(([, count]) => count)
      ? table("Workers", [["queue"], ["workers", "n"]], workers.map(([name, count]) => [name, number(count)]))
      : h("div", { class: "notice" }, "No worker listens: jobs wait until one is started (", h("code", null, "./spnode up"), ")."),
    h("h2", null, "Rollouts of this gateway"),
    tiles([
      ["rows waiting", number(rollouts.queued_rows)],
      ["requests", number(rollouts.requests)],
      ["batches", number(rollouts.batches)],
      ["rows", number(rollouts.rows)],
      ["rows per batch", number(rollouts.rows_per_batch)],
      ["compilations", number(rollouts.compilations)],
      ["models in memory", number(rollouts.models_resident)],
      ["their size", rollouts.resident_bytes === undefined ? "–" : bytes(rollouts.resident_bytes)],
    ]),
    h("h2", null, "Limits"),
    table("Limits", [["limit"], ["value", "n"]], Object.entries(limits).map(([name, value]) =>
      [name.replaceAll("_", " "), name.endsWith("_bytes") || name.endsWith("bytes_limit") ? bytes(value) : number(value)])),
    h("p", { class: "soft" }, "For Prometheus the same and more stand at ", h("code", null, "/metrics"), ". REST is described at ",
      h("a", { href: "/openapi.json" }, "/openapi.json"), "."));
}
