// Jobs: the list, and one as it runs.

import { action, choice, confirmed, duration, empty, field, h, paged, plain, problem, say, state, table, when } from "./elements.js";
import { addLoss, lossCurve, lossesOf } from "./loss.js";
import { readiness } from "./health.js";
import { HELPS, pace, part, said } from "./progress.js";
import { resultOf } from "./results.js";
import { ask, ENDED, events, get, make } from "./service.js";

const TITLES = {
  training: "Training of", sweep: "Sweep of", dataset: "Dataset of", rollout: "Rollouts of", calibration: "Calibration of", evaluation: "Comparison on",
};
const KINDS = Object.keys(TITLES);

export function jobTable(jobs, label = "Jobs") {
  // A phone has no room for what it is of, so there it stands under the id.
  return table(label, [["job", "fit"], ["state"], ["how far", "fit"], ["of", "fit more"], ["kind", "more"], ["begun", "more"]], jobs.map((job) => [
    [h("a", { href: `#/jobs/${job.id}` }, job.id.slice(0, 4) + "…" + job.id.slice(-6)), h("small", { class: "soft less" }, about(job))],
    state(job.state), howFar(job), about(job), job.kind, when(job.created_at),
  ]));
}

/** What it does, or what came of it: the last progress of one that has ended is no news. */
function howFar(job) {
  if (job.state === "failed") return String(job.error?.code ?? "").replaceAll("_", " ");
  if (job.state === "cancelled") return "";
  if (job.state !== "succeeded" || !job.started_at) return said(job.progress);
  return `took ${duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}`;
}

function about(job) {
  return job.request.model || job.request.system || job.request.dataset || "";
}

export async function jobList(_, signal) {
  const [states, kinds] = [choice([["", "any state"], "queued", "running", ...ENDED], ""), choice([["", "any kind"], ...KINDS], "")];
  const list = paged((after) => {
    const query = new URLSearchParams({ limit: 50 });
    if (states.value) query.set("state", states.value);
    if (kinds.value) query.set("kind", kinds.value);
    if (after) query.set("after", after);
    return get(`/v1/jobs?${query}`, { signal });
  }, (jobs) => (jobs.length ? jobTable(jobs) : empty("No jobs here", h("p", null, "A training begins from a ", h("a", { href: "#/datasets" }, "dataset"), "."))));
  for (const each of [states, kinds]) each.addEventListener("change", () => list.again());
  await list.load();
  const timer = setInterval(() => {
    if (signal.aborted) clearInterval(timer);
    else if (!document.hidden) list.refresh();
  }, 2000);
  return h("div", null, h("h1", null, "Jobs"),
    h("div", { class: "row" }, field("State", states), field("Kind", kinds)), h("br"), list.element);
}

export async function jobView([id], signal) {
  let job = await get(`/v1/jobs/${id}`, { signal });
  const head = h("div", { class: "row" });
  const bar = h("progress", { "aria-label": "Progress", max: 1 });
  const told = h("p", { class: "soft" });
  const tell = pace();
  const outcome = h("div", null);
  const trouble = h("div", null);
  const waits = h("p", { class: "soft", role: "status" });
  const points = [];
  const loss = lossCurve(points);
  const lines = h("pre", { class: "log", tabindex: "0", role: "log", "aria-label": "Log" });
  const cancel = action("Cancel", async () => {
    if (await confirmed("Cancel this job? What it has computed is kept where it can be used again.", { label: "Cancel the job" }))
      job = await ask("POST", `/v1/jobs/${id}/cancel`);
    refresh();
  }, { class: "danger" });
  const retry = action("Try again", async () => {
    try {
      job = await make(`/v1/jobs/${id}/retry`, undefined, job.finished_at);
    } catch (error) {
      await lookAgain();
      throw error;
    }
    say("Queued again");
    refresh();
    follow();
  });

  let shown = null, nobody = "";
  function refresh() {
    const isOver = ENDED.includes(job.state);
    head.replaceChildren(state(job.state), h("span", { class: "soft" }, `${job.kind}, attempt ${job.attempt}`),
      h("span", { class: "soft" }, when(job.created_at)));
    cancel.button.hidden = isOver || job.cancel_requested;
    retry.button.hidden = !["failed", "cancelled"].includes(job.state);
    const progress = job.progress || {};
    // A sweep counts its candidates while it waits.
    bar.hidden = told.hidden = isOver || (job.state === "queued" && !progress.candidates);
    const done = part(progress);
    if (done === null) bar.removeAttribute("value");
    else bar.value = done;
    told.textContent = tell(progress);
    if (job.cancel_requested && !isOver) waits.textContent = "Being cancelled: it ends at its next step.";
    else waits.textContent = job.state === "queued" ? nobody : "";
    // Once it has ended nothing changes: what is being read stays.
    const ended = isOver ? `${job.state} ${job.attempt}` : null;
    if (ended === null || ended !== shown) outcome.replaceChildren(...[...ending(job, signal)].flat(3).filter(Boolean));
    shown = ended;
  }

  function take(event) {
    if (event.kind === "progress") {
      job = { ...job, progress: event.data };
      refresh();
      return;
    }
    if (event.kind === "status") lookSoon();
    if (event.kind === "metrics") {
      if (typeof event.data.iteration !== "number") return;
      addLoss(points, event.data);
      drawSoon();
      return;
    }
    if (event.message) {
      const isAtEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8;
      const at = new Date(event.created_at).toTimeString().slice(0, 8);
      lines.append(h("span", { class: event.level === "error" ? "bad" : event.level === "warning" ? "warn" : null }, `${at}  ${event.message}\n`));
      for (const each of (event.data && event.data.choices) || []) lines.append(`          ${each.what}: ${plain(each.value)} (${each.why})\n`);
      if (isAtEnd) lines.scrollTop = lines.scrollHeight;
    }
  }

  /** Once for all the events of a moment: a history comes in one piece. */
  function soon(act) {
    let waits = false;
    return () => {
      if (waits) return;
      waits = true;
      setTimeout(() => {
        waits = false;
        if (!signal.aborted) act();
      }, 250);
    };
  }
  const drawSoon = soon(() => loss.change(lossesOf(points)));
  const lookSoon = soon(() => look());

  /** As the command line says it. */
  async function lookForWorkers() {
    if (job.state !== "queued" || !job.queue) return;
    const { workers = {} } = await readiness(signal);
    const also = job.queue.includes(".gpu") ? "; without the GPU any worker takes it" : "";
    nobody = workers[job.queue] === 0 ? `No worker takes ${job.queue} now: it waits for one${also}.` : "";
    refresh();
  }

  async function look() {
    try {
      job = await get(`/v1/jobs/${id}`, { signal });
      trouble.replaceChildren();
      refresh();
      await lookForWorkers();
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(problem(error));
    }
  }

  /** One that has ended may have been tried again elsewhere. */
  async function lookAgain() {
    await look();
    if (!signal.aborted && !ENDED.includes(job.state)) follow();
  }
  document.addEventListener("visibilitychange", () => document.hidden || lookAgain(), { signal });

  let isFollowed = false;
  async function follow() {
    if (isFollowed) return;
    isFollowed = true;
    lines.replaceChildren();
    points.length = 0;
    // A service that is away is noticed by asking; all else comes by itself.
    const timer = setInterval(() => (signal.aborted ? clearInterval(timer) : look()), 5000);
    try {
      for await (const event of events(id, signal)) take(event);
    } catch (error) {
      trouble.replaceChildren(problem(error));
    }
    clearInterval(timer);
    isFollowed = false;
    if (!signal.aborted) await look();
  }
  refresh();
  follow();
  lookForWorkers().catch(() => {}); // it is asked again in a moment
  const children = job.kind === "sweep" ? await candidates(id, signal) : null;
  return h("div", null,
    h("h1", null, `${TITLES[job.kind] || "Job"} ${about(job) || id}`), h("p", { class: "soft" }, h("code", null, id)),
    head, bar, told, waits, trouble, outcome, h("div", { class: "row" }, cancel.button, retry.button), cancel.place, retry.place,
    ["training", "sweep"].includes(job.kind) && h("div", null, h("br"), loss),
    children, h("h2", null, "Log"), lines,
    h("details", null, h("summary", null, "What was asked"), h("pre", null, JSON.stringify(job.request, null, 2))));
}

async function candidates(id, signal) {
  const list = paged((after) => get(`/v1/jobs?parent=${id}&limit=50${after ? `&after=${encodeURIComponent(after)}` : ""}`, { signal }), (jobs) => jobTable(jobs, "Candidates"));
  await list.load();
  const timer = setInterval(() => (signal.aborted ? clearInterval(timer) : list.refresh()), 3000);
  return h("div", null, h("h2", null, "Candidates"), list.element);
}

export function failure({ code, message, detail, field: place }) {
  const helps = code && HELPS[code];
  return h("div", null, problem({ message: message || detail || code || "it gives no reason" }),
    h("p", null, code && h("code", null, code), place && [" in ", h("code", null, place)], helps && ` What helps: ${helps}`));
}

function* ending(job, signal) {
  if (job.error) yield failure(job.error);
  const result = job.result;
  if (!result) return;
  if (job.kind === "training") {
    yield h("p", null, h("a", { class: "button", href: `#/models/${result.model}/${result.version}` }, `Look at ${result.model}/${result.version}`), " ",
      h("a", { class: "button quiet", href: `#/rollout/${result.model}/${result.version}` }, "Roll out"));
  } else if (job.kind === "sweep") {
    const [what, number] = result.ensemble ? ["ensemble", result.ensemble.version] : ["best", result.best];
    yield h("p", null, h("a", { class: "button", href: `#/models/${result.model}/${number}` }, `Look at the ${what}, ${result.model}/${number}`));
  } else if (job.kind === "dataset") {
    yield h("p", null, h("a", { class: "button", href: `#/datasets/${result.dataset}` }, "Look at the dataset"));
  }
  yield resultOf(job, signal);
  yield h("details", null, h("summary", null, "The result as JSON"), h("pre", null, JSON.stringify(result, null, 2)));
}
