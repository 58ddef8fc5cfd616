// What the page asks of the service, as any other caller: REST with a key.

const KEY = "spnode-key";

/** States in which a job has ended. */
export const ENDED = ["succeeded", "failed", "cancelled"];

/** What the service refused, in its own words (RFC 9457). */
export class Problem extends Error {
  constructor(status, body, retryAfter = null) {
    super(body.detail || body.title || `the service answered ${status}`);
    this.status = status;
    this.code = body.code;
    this.errors = body.errors || [];
    this.requestId = body.request_id;
    this.body = body;
    /** Seconds after which to ask again, where the service says so. */
    this.retryAfter = retryAfter;
  }
}

/** What a browser keeps for the page; null where it keeps nothing. */
export function stored(act) {
  try {
    return act();
  } catch {
    return null;
  }
}

let remembered = null;

/** The API key: here, and where the browser keeps it. */
export const key = {
  get: () => remembered || stored(() => sessionStorage.getItem(KEY) || localStorage.getItem(KEY)),
  set(value, isKept) {
    remembered = value;
    stored(() => sessionStorage.setItem(KEY, value));
    if (isKept) stored(() => localStorage.setItem(KEY, value));
  },
  forget() {
    remembered = null;
    stored(() => sessionStorage.removeItem(KEY));
    stored(() => localStorage.removeItem(KEY));
  },
  /** Why a key cannot be sent, in a sentence; null where it can. A browser throws at a header with such characters. */
  fault(value) {
    const found = value.match(/[^ -~]/u);
    if (!found) return null;
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `character ${found.index + 1} of this key is U+${code}; expected letters, digits, - and _ alone: copy the whole key once more`;
  },
};

function headers(more) {
  const found = { ...more };
  const secret = key.get();
  const fault = secret && key.fault(secret);
  if (fault) throw new Problem(401, { detail: fault });
  if (secret) found.authorization = `Bearer ${secret}`;
  return found;
}

async function send(method, path, options) {
  let answer;
  try {
    answer = await fetch(path, { method, cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "the service does not answer; is the gateway running?" });
  }
  if (answer.ok) return answer;
  const wait = Number(answer.headers.get("retry-after")) || null;
  throw new Problem(answer.status, await answer.json().catch(() => ({})), wait);
}

/** A request whose body and answer are JSON; null where the answer has no body. */
export async function ask(method, path, body, { more = {}, signal } = {}) {
  const options = { signal, headers: headers(more) };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  const answer = await send(method, path, options);
  return answer.status === 204 ? null : answer.json();
}

const unanswered = new Map();
// The same asked later is meant: as long as somebody tries again in vain, and no longer.
const UNANSWERED_MS = 60_000;

/**
 * Ask for something that is to be made once: with an Idempotency-Key, kept until there
 * is an answer, so that the same asked again, by hand too, makes nothing twice.
 */
async function once(what, send) {
  let mine = unanswered.get(what);
  if (!mine || (!mine.underway && Date.now() - mine.failedAt > UNANSWERED_MS)) {
    mine = { key: uuid(), underway: 0, failedAt: null };
    unanswered.set(what, mine);
  }
  // Another may have been begun by the time of this answer.
  const forget = () => unanswered.get(what) === mine && unanswered.delete(what);
  mine.underway += 1;
  try {
    const made = await send({ "idempotency-key": `"${mine.key}"` });
    forget();
    return made;
  } catch (error) {
    if (error.status >= 400 && error.status < 500) forget();
    mine.failedAt = Date.now();
    throw error;
  } finally {
    mine.underway -= 1;
  }
}

function uuid() {
  // Browsers have no randomUUID for pages without TLS, but for this machine's own.
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (each) => each.toString(16).padStart(2, "0")).join("");
}

/** Have the service make something: a job, a dataset, another attempt after a moment. */
export const make = (path, body, moment = "") => once(`${path} ${JSON.stringify(body)} ${moment}`, (more) => ask("POST", path, body, { more }));

export const get = (path, options) => ask("GET", path, undefined, options);

/** What lies at a path, and its ETag, with which a change says what it replaces. */
export async function getRevision(path) {
  const answer = await send("GET", path, { headers: headers() });
  return { found: await answer.json(), etag: answer.headers.get("etag") };
}

/** The address of a picture of the service, which asks for a key; gone with the view. */
export async function picture(path, signal) {
  const answer = await send("GET", path, { headers: headers(), signal, cache: "default" });
  const address = URL.createObjectURL(await answer.blob());
  signal.addEventListener("abort", () => URL.revokeObjectURL(address));
  return address;
}

/** A file of the service, handed to the browser to keep. */
export async function save(path, name) {
  const answer = await send("GET", path, { headers: headers() });
  const address = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Send a file as a dataset, whatever is looked at meanwhile; fetch does not tell how much has gone. */
export const upload = (file, told) => once(`${file.name} ${file.size} ${file.lastModified}`, (more) => sendFile(file, told, more));

function sendFile(file, told, more) {
  return new Promise((resolve, reject) => {
    const sent = new XMLHttpRequest();
    sent.open("POST", `/v1/datasets?name=${encodeURIComponent(file.name.slice(0, 200))}`);
    sent.responseType = "json";
    const said = headers({ ...more, "content-type": "application/octet-stream" });
    for (const [name, value] of Object.entries(said)) sent.setRequestHeader(name, value);
    sent.upload.onprogress = (event) => told(event.loaded, event.total);
    sent.onload = () =>
      sent.status < 300 ? resolve(sent.response) : reject(new Problem(sent.status, sent.response || {}));
    sent.onerror = () => reject(new Problem(0, { detail: "the connection was lost during the upload" }));
    sent.send(file);
  });
}

/** The events of a job from its first, over lost connections, until it has ended. */
export async function* events(job, signal) {
  let last = 0;
  while (!signal.aborted) {
    try {
      const path = `/v1/jobs/${job}/events?after=${last}`;
      const answer = await send("GET", path, { headers: headers(), signal });
      for await (const event of parsed(answer.body)) {
        // How far a job is has no id: whoever resumes is told it anew.
        last = event.id ?? last;
        yield event;
      }
      // The stream closes at each end of a job, and one that was tried again has several.
      const { state } = await get(`/v1/jobs/${job}`, { signal });
      if (ENDED.includes(state)) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function* parsed(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data: "));
        if (data.length) yield JSON.parse(data.map((line) => line.slice(6)).join("\n"));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
