// The dashboard: which page is shown, and the frame around it.

import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { Overview } from "./overview.js";
import { State } from "./parts.js";
import { Queue } from "./queue.js";
import { isReadOnly, listen, logsOut, useLive } from "./server.js";
import { Team } from "./team.js";
import { Timeline } from "./timeline.js";
import { Usage } from "./usage.js";

const PAGES = [
  ["", "Overview"],
  ["queue", "Queue"],
  ["timeline", "Timeline"],
  ["usage", "Usage"],
];
const STATES = { live: "holds", connecting: "starting", reconnecting: "asking", refused: "gone" };

/** The parts of the address after the #: `#/team/webapp-impl` is ["team", "webapp-impl"]. */
const place = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);

function Page({ at }) {
  const [name, one, two] = at;
  switch (name) {
    case "":
      return html`<${Overview} />`;
    case "team":
      return html`<${Team} session=${one} id=${two} />`;
    case "queue":
      return html`<${Queue} />`;
    case "timeline":
      return html`<${Timeline} session=${one} />`;
    case "usage":
      return html`<${Usage} />`;
    default:
      return html`<div class="empty">
        <h1>There is no such page</h1>
        <a href="#/">Overview</a>
      </div>`;
  }
}

function App() {
  const [at, go] = useState(place);
  useEffect(() => {
    const turn = () => {
      go(place());
      scrollTo(0, 0);
    };
    addEventListener("hashchange", turn);
    return () => removeEventListener("hashchange", turn);
  }, []);
  useEffect(() => {
    const page = PAGES.find(([name]) => name === at[0]);
    document.title = `${at[0] === "team" ? at[1] : (page?.[1] ?? "Not found")} · Tmux Orchestrator`;
  }, [at]);
  return html`<${Top} at=${at} />
    <main id="main" tabindex="-1"><${Page} at=${at} /></main>`;
}

function Top({ at }) {
  const { state } = useLive();
  return html`<header class="top">
    <a class="name" href="#/">Tmux Orchestrator</a>
    <nav aria-label="Pages">
      <ul>
        ${PAGES.map(
          ([name, words]) =>
            html`<li key=${name}>
              <a
                href=${`#/${name}`}
                aria-current=${at[0] === name || (name === "" && at[0] === "team") ? "page" : undefined}
                >${words}</a
              >
            </li>`,
        )}
      </ul>
    </nav>
    <div class="end">
      ${isReadOnly && html`<span class="tag">read only</span>`}<span role="status"
        ><${State} of=${STATES[state]}>${state}<//></span
      ><${Theme} />
      ${logsOut && html`<form method="post" action="/logout"><button class="plain">Log out</button></form>`}
    </div>
  </header>`;
}

const THEMES = ["auto", "light", "dark"];

function Theme() {
  const [theme, set] = useState(() => localStorage.getItem("theme") ?? "auto");
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<button
    type="button"
    class="plain"
    onClick=${() => set(next)}
    aria-label=${`Colours: ${theme}. Change to ${next}`}
  >
    ${theme}
  </button>`;
}

listen();
render(html`<${App} />`, document.getElementById("app"));
