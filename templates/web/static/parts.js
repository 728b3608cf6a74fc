// Small parts that all pages are made of.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { change } from "./server.js";
import { moment, plain, span } from "./words.js";

const TONES = {
  working: "busy",
  running: "busy",
  starting: "busy",
  merging: "busy",
  submitted: "busy",
  pasted: "busy",
  idle: "off",
  queued: "off",
  open: "off",
  stopped: "off",
  cancelled: "off",
  superseded: "off",
  withdrawn: "off",
  not_yet: "off",
  holds: "good",
  "closed by hand": "good",
  completed: "good",
  succeeded: "good",
  merged: "good",
  acknowledged: "good",
  delivered: "good",
  asking: "warn",
  paused: "warn",
  needs_attention: "warn",
  stale: "warn",
  due: "warn",
  waiting: "warn",
  look: "warn",
  time: "held",
  limited: "held",
  gone: "bad",
  failed: "bad",
  fails: "bad",
  abandoned: "bad",
  conflict: "bad",
  red: "bad",
  kept_back: "bad",
  person: "bad",
};

export const tone = (name) => `tone-${TONES[name] ?? "off"}`;

/** A state: a dot and its word. */
export const State = ({ of, children }) => html`<span class="state ${tone(of)}">${children ?? plain(of)}</span>`;

/** How long ago; it counts on by itself. `since` says for how long, `bare` leaves out both words. */
export function Ago({ at, since = false, bare = false }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const age = Date.now() - at;
    const timer = setInterval(() => setNow(Date.now()), age < 60_000 ? 1000 : 20_000);
    return () => clearInterval(timer);
  }, [at, now - at < 60_000]);
  if (!at) return null;
  return html`<time datetime=${new Date(at).toISOString()} title=${new Date(at).toLocaleString()}>
    ${since && !bare ? "for " : ""}${span(Math.max(0, now - at))}${since || bare ? "" : " ago"}</time
  >`;
}

export const Clock = ({ at }) =>
  html`<time datetime=${new Date(at).toISOString()} title=${new Date(at).toLocaleString()}>${moment(at)}</time>`;

export function Card({ title, aside, children, className = "" }) {
  return html`<section class="card ${className}">
    <header>
      <h2>${title}</h2>
      ${aside && html`<span class="small muted">${aside}</span>`}
    </header>
    ${children}
  </section>`;
}

export const Empty = ({ children }) => html`<div class="empty">${children}</div>`;

/** What to type in a terminal, with a button that copies it. */
export function Command({ text }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<span class="row"
    ><code>${text}</code>
    <button type="button" class="plain" onClick=${copy} aria-label=${`Copy: ${text}`}>
      ${copied ? "copied" : "copy"}
    </button></span
  >`;
}

/** A button that does something on the server, and says what came of it. It asks first when `ask` is a sentence. */
export function Act({ children, path, body, ask, kind = "", disabled, onDone }) {
  const [state, setState] = useState({ busy: false, said: null, bad: false });
  const dialog = useRef(null);
  const act = async () => {
    dialog.current?.close();
    setState({ busy: true, said: null, bad: false });
    const { data, error } = await change(path, body);
    setState({ busy: false, said: error ?? data?.sentence ?? null, bad: Boolean(error) });
    if (!error) onDone?.(data);
  };
  return html`<span class="row">
    <button
      type="button"
      class=${kind}
      disabled=${disabled || state.busy}
      onClick=${() => (ask ? dialog.current.showModal() : act())}
    >
      ${children}
    </button>
    <span role="status" class="small ${state.bad ? "tone-bad" : ""}">${state.said}</span>
    ${
      ask &&
      html`<dialog ref=${dialog} aria-label=${ask}>
        <form method="dialog" class="stack">
          <p>${ask}</p>
          <div class="row">
            <button type="button" class="main" onClick=${act}>${children}</button><button>Leave it</button>
          </div>
        </form>
      </dialog>`
    }</span
  >`;
}

/** Events that were told and events that were asked for, newest first, each once; those that say something to a person. */
export function joined(told, asked = []) {
  const all = new Map([...asked, ...told].map((one) => [one.id, one]));
  return [...all.values()].filter((one) => one.sentence).sort((a, b) => b.id - a.id);
}

/** A list of what has happened, newest first. */
export function Feed({ events, tall = false, showTeam = false, children }) {
  if (!events.length) return html`<p class="muted small">Nothing yet.</p>`;
  return html`<ol
    class="feed ${tall ? "tall" : ""}"
    tabindex=${tall ? 0 : undefined}
    aria-label=${tall ? "Events" : undefined}
  >
    ${events.map(
      (one) =>
        html`<li key=${one.id}>
          <${Clock} at=${one.at} />
          <span
            >${showTeam && one.session ? html`<a href=${`#/team/${one.session}`}>${one.session}</a>${" "}` : ""}${one.sentence}</span
          >
        </li>`,
    )}
    ${children}
  </ol>`;
}

/** The value of a promise: {data, error}; asked again when one of `deps` changes. */
export function useAnswer(ask, deps) {
  const [answer, setAnswer] = useState({});
  useEffect(() => {
    let isMine = true;
    ask().then((found) => {
      if (isMine) setAnswer(found);
    });
    return () => {
      isMine = false;
    };
  }, deps);
  return answer;
}
