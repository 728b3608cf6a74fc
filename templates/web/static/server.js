// The server: what it tells by itself, what it answers, and what it is asked to do.

import { useEffect, useState } from "./vendor/htm-preact.js";

const API = "/api/v1";
const MOST_EVENTS = 500;

/** What the server has written into the page. */
const told = (name) => document.querySelector(`meta[name="${name}"]`).content;

/** Whether the server refuses every change, and whether there is a session to end. */
export const isReadOnly = told("read-only") === "yes",
  logsOut = told("logs-out") === "yes";

// -- what it tells --

/** What is now, by the names of pieces; and what has happened since the page was opened, newest first. */
export const live = { pieces: new Map(), events: [], state: "connecting" };
const hearers = new Set();
let isDue = false;

function tell() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    hearers.forEach((hear) => hear());
  });
}

// A hidden page draws no frames; what it has missed is drawn when it is looked at again.
document.addEventListener("visibilitychange", () => {
  isDue = false;
  tell();
});

export function listen() {
  // The browser comes back by itself, and names the last event that it has heard.
  const source = new EventSource(`${API}/stream`);
  const become = (state) => {
    live.state = state;
    tell();
  };
  source.onopen = () => become("live");
  source.onerror = () => become(source.readyState === EventSource.CLOSED ? "refused" : "reconnecting");
  source.addEventListener("changed", (event) => {
    const { piece, value } = JSON.parse(event.data);
    if (value === null) live.pieces.delete(piece);
    else live.pieces.set(piece, value);
    tell();
  });
  source.addEventListener("happened", (event) => {
    live.events.unshift(JSON.parse(event.data));
    live.events.length = Math.min(live.events.length, MOST_EVENTS);
    tell();
  });
  source.addEventListener("behind", () => location.reload());
}

/** Draw a component again whenever the server has told something. Returns `live`. */
export function useLive() {
  const [, draw] = useState(0);
  useEffect(() => {
    const hear = () => draw((count) => count + 1);
    hearers.add(hear);
    hear();
    return () => hearers.delete(hear);
  }, []);
  return live;
}

const NEEDS = ["person", "look", "time", "nothing", "over"];

/** All teams, what needs a person first. */
export function teams() {
  return [...live.pieces]
    .filter(([name]) => name.startsWith("orchestration/"))
    .map(([, team]) => team)
    .sort((a, b) => NEEDS.indexOf(a.need) - NEEDS.indexOf(b.need) || b.updated_at - a.updated_at);
}

// -- what it answers, and what it is asked to do --

async function ask(path, options) {
  try {
    const answer = await fetch(`${API}${path}`, options);
    const data = await answer.json();
    if (answer.ok) return { data };
    const { sentence, hint } = data.error;
    return { error: hint ? `${sentence}; ${hint}` : sentence };
  } catch {
    return { error: "the dashboard's server does not answer: is monitoring_dashboard.py still running?" };
  }
}

/** What is at a path: {data} or {error: a sentence}. `query` are its parameters; those that are undefined are left out. */
export function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  return ask(given.length ? `${path}?${new URLSearchParams(given)}` : path);
}

/** Have something done: {data} or {error: a sentence}. */
export function change(path, body = {}) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": told("csrf") };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}
