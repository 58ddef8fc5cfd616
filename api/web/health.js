// Whether the deployment can serve, what waits, and what it allows.

import { bytes, h, number, problem, table, tiles } from "./elements.js";
import { get } from "./service.js";

const AGAIN_MS = 5000;
const AWAY = {
  database: "requests are refused until it is back",
  queue: "jobs begin when it is back",
};

export async function healthView(_, signal) {
  const place = h("div", null);
  async function show() {
    place.replaceChildren(...report(await readiness(signal)));
  }
  await show();
  const timer = setInterval(async () => {
    if (signal.aborted) return clearInterval(timer);
    await show().catch((error) => signal.aborted || place.replaceChildren(problem(error)));
  }, AGAIN_MS);
  const limits = await get("/v1/limits", { signal });
  return h("div", null, h("h1", null, "Health"), place,
    h("h2", null, "Limits"),
    table("Limits", [["limit"], ["value", "n"]], Object.entries(limits).map(([name, value]) =>
      [name.replaceAll("_", " "), name.endsWith("_bytes") || name.endsWith("bytes_limit") ? bytes(value) : number(value)])),
    h("p", { class: "soft" }, "For Prometheus the same and more stand at ", h("code", null, "/metrics"), "; every call is described in ",
      h("a", { href: "#/reference" }, "REST"), "."));
}

/** The report, which comes with 503 where something is missing. */
export function readiness(signal) {
  return get("/health/ready", { signal }).catch((error) => {
    if (error.body && error.body.checks) return error.body;
    throw error;
  });
}

function* report(ready) {
  const isReady = ready.status === "ready";
  const checks = ready.checks || {};
  const isFull = checks.database === "has no room";
  const away = ["database", "queue"].filter((name) => ![undefined, "ok", "has no room"].includes(checks[name]));
  const said = !isReady ? `Not ready: ${ready.status}.`
    : away.length ? `Ready, but no answer comes from the ${away.join(" and the ")}: ${AWAY[away[0]]}.`
      : isFull ? "Ready, but the disk of the database is full: nothing more can be kept."
        : "Ready: requests are served.";
  yield h("p", { class: isReady && !away.length && !isFull ? "good" : "bad" }, said);
  yield tiles(Object.entries(checks).map(([name, found]) => [name, String(found)]));
  const workers = Object.entries(ready.workers || {});
  yield h("h2", null, "Workers");
  // It is the database that knows them.
  if (!away.includes("database") && workers.length && !workers.some(([, count]) => count)) {
    yield h("div", { class: "notice" }, "No worker listens: jobs wait until one is started (", h("code", null, "./spnode up"), ").");
  }
  if (workers.length) yield table("Workers", [["queue"], ["workers", "n"]], workers.map(([name, count]) => [name, number(count)]));
  const rollouts = ready.rollouts;
  if (!rollouts) return;
  yield h("h2", null, "Rollouts of this gateway");
  yield tiles([
    ["rows waiting", number(rollouts.queued_rows)],
    ["requests", number(rollouts.requests)],
    ["batches", number(rollouts.batches)],
    ["rows", number(rollouts.rows)],
    ["rows per batch", number(rollouts.rows_per_batch)],
    ["compilations", number(rollouts.compilations)],
    ["models in memory", number(rollouts.models_resident)],
    ["their size", rollouts.resident_bytes === undefined ? "–" : bytes(rollouts.resident_bytes)],
  ]);
}
