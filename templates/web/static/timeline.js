// The past: any moment as it was, and what has changed from one to another.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Card, Clock, Empty, Feed, State, useAnswer } from "./parts.js";
import { Terminal } from "./screen.js";
import { get, teams, useLive } from "./server.js";
import { many, plain, span } from "./words.js";

const HOUR = 3_600_000;
const RANGES = { 1: "the last hour", 6: "6 hours", 24: "a day", 168: "a week" };

export function Timeline({ session }) {
  useLive();
  const [hours, setHours] = useState(1);
  const [until, setUntil] = useState(Date.now);
  const [at, setAt] = useState(until);
  const [other, setOther] = useState(null);
  const since = until - hours * HOUR;
  const only = session ? { orchestration: session } : {};
  const { data: past, error } = useAnswer(() => get("/timeline", { since, until, ...only }), [since, until, session]);
  const events = past?.events ?? [];
  const reload = (wanted) => {
    const now = Date.now();
    setHours(wanted);
    setUntil(now);
    setAt(now);
    setOther(null);
  };
  return html`<h1>Timeline</h1>
    <div class="fields">
      <label
        >Of<select
          value=${session ?? ""}
          onChange=${(event) => {
            location.hash = `#/timeline/${event.target.value}`;
          }}
        >
          <option value="">all teams</option>
          ${sessions(teams(), session).map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select></label
      >
      <label
        >Over<select value=${hours} onChange=${(event) => reload(Number(event.target.value))}>
          ${Object.entries(RANGES).map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}
        </select></label
      >
      <div class="row">
        <button type="button" onClick=${() => reload(hours)}>Up to now</button>
        <button type="button" aria-pressed=${other !== null} onClick=${() => setOther(other === null ? since : null)}>
          Compare two
        </button>
      </div>
    </div>
    ${error && html`<p class="said tone-warn" role="alert">${error}</p>`}
    <section class="card" aria-label="Moments">
      <${Slider}
        label=${other === null ? "Moment" : "Later moment"}
        since=${since}
        until=${until}
        at=${at}
        events=${events}
        onChange=${setAt}
      />
      ${other !== null && html`<${Slider} label="Earlier moment" since=${since} until=${until} at=${other} events=${events} onChange=${setOther} />`}
    </section>
    ${other === null ? html`<${Moment} at=${at} since=${since} only=${only} />` : html`<${Changes} from=${Math.min(at, other)} to=${Math.max(at, other)} only=${only} />`}`;
}

const sessions = (known, session) =>
  [...new Set([...known.map((one) => one.session), ...(session ? [session] : [])])].sort();

/** A moment chosen by sliding, or by stepping from event to event; the marks show where something has happened. */
function Slider({ label, since, until, at, events, onChange }) {
  const told = events.filter((one) => one.sentence);
  const before = told.findLast((one) => one.at < at),
    after = told.find((one) => one.at > at);
  const place = (time) => (1000 * (time - since)) / (until - since);
  return html`<div class="stack">
    <div class="row between">
      <label class="row" for=${label}>${label}</label><strong class="number"><${Clock} at=${at} /></strong>
    </div>
    <input
      id=${label}
      type="range"
      min=${since}
      max=${until}
      step="1000"
      value=${at}
      aria-valuetext=${new Date(at).toLocaleString()}
      onInput=${(event) => onChange(Number(event.target.value))}
    />
    <svg class="marks" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">
      ${told.map((one) => html`<rect key=${one.id} x=${place(one.at)} y="0" width="2" height="10" />`)}
    </svg>
    <div class="row">
      <button type="button" disabled=${!before} onClick=${() => onChange(before.at)}>Event before</button>
      <button type="button" disabled=${!after} onClick=${() => onChange(after.at)}>Event after</button>
      <span class="small muted clip">${(told.findLast((one) => one.at <= at) ?? {}).sentence}</span>
    </div>
  </div>`;
}

/** The newest answer to a question that changes fast: while one is asked, only the last of the next ones is kept. */
function useNewest(ask, key) {
  const [answer, setAnswer] = useState({});
  const state = useRef({ busy: false, next: null });
  useEffect(() => {
    const run = async (question) => {
      state.current.busy = true;
      setAnswer(await question());
      const { next } = state.current;
      state.current = { busy: false, next: null };
      if (next) run(next);
    };
    if (state.current.busy) state.current.next = ask;
    else run(ask);
  }, [key]);
  return answer;
}

function Moment({ at, since, only }) {
  const [chosen, choose] = useState(undefined);
  const asked = { at, since, ...only, agent: chosen };
  const { data, error } = useNewest(() => get("/moment", asked), JSON.stringify(asked));
  if (error) return html`<p class="said tone-warn" role="alert">${error}</p>`;
  if (!data) return html`<${Empty}>Looking…<//>`;
  if (!data.teams.length) return html`<${Empty}><p>No team was running then.</p><//>`;
  const everyone = data.teams.flatMap((team) => team.agents);
  const agent = everyone.find((one) => one.id === data.shown);
  return html`<div class="columns" data-at=${data.at}>
      <div class="stack">
        ${data.teams.map((team) => html`<${Then} key=${team.id} team=${team} agent=${agent} choose=${choose} />`)}
      </div>
      ${agent && html`<${ScreenThen} agent=${agent} at=${data.at} />`}
    </div>
    <div class="columns even">
      <${Card} title="What had happened" aside="newest first"
        ><${Feed} events=${data.events.filter((one) => one.sentence).reverse()} tall showTeam=${data.teams.length > 1}
      /><//>
      <${Card} title="Messages" aside="as they were then"><${Messages} messages=${data.messages} /><//>
    </div>`;
}

function Then({ team, agent, choose }) {
  const holding = team.criteria.filter((one) => ["holds", "closed by hand"].includes(one.state)).length;
  return html`<section class="card" aria-label=${team.session}>
    <header>
      <h2>${team.session}</h2>
      <${State} of=${team.is_paused ? "paused" : team.status} />
    </header>
    ${
      team.criteria.length > 0 &&
      html`<div>
        <progress max=${team.criteria.length} value=${holding} aria-label="Criteria that held"></progress>
        <span class="small muted">${holding} of ${many(team.criteria.length, "criterion", "criteria")} held</span>
      </div>`
    }
    <div class="agents" role="group" aria-label="Agents then">
      ${team.agents.map(
        (one) =>
          html`<button
            type="button"
            key=${one.id}
            class="agent"
            aria-pressed=${one === agent}
            onClick=${() => choose(one.id)}
          >
            <strong>${one.role}</strong>
            ${one.state ? html`<${State} of=${one.state} />` : html`<span class="small muted">not known</span>`}
          </button>`,
      )}
    </div>
  </section>`;
}

function ScreenThen({ agent, at }) {
  const { known, since, html: inside } = agent.screen;
  return html`<section class="card" aria-label=${`Screen of ${agent.role} then`}>
    <header>
      <h2>${agent.target}</h2>
      ${since && html`<span class="small muted">like this for ${span(at - since)}</span>`}
    </header>
    ${
      known === "shown"
        ? html`<${Terminal} html=${inside} label=${`What ${agent.role} showed then`} />`
        : html`<p class="muted">
            ${known === "no window" ? "It had no window then." : "Its screen was not recorded then."}
          </p>`
    }
  </section>`;
}

function Messages({ messages }) {
  if (!messages.length) return html`<p class="muted small">None in this time.</p>`;
  return html`<ol class="feed tall" tabindex="0" aria-label="Messages">
    ${messages
      .slice()
      .reverse()
      .map(
        (one) =>
          html`<li key=${one.id}>
            <${Clock} at=${one.queued_at} /><span
              >${one.sender} to ${one.target}: ${one.body.split("\n")[0].slice(0, 200)} <${State} of=${one.status}
            /></span>
          </li>`,
      )}
  </ol>`;
}

function Changes({ from, to, only }) {
  const { data, error } = useNewest(
    () => get("/changes", { since: from, until: to, ...only }),
    JSON.stringify([from, to, only]),
  );
  if (error) return html`<p class="said tone-warn" role="alert">${error}</p>`;
  if (!data) return html`<${Empty}>Looking…<//>`;
  const listed = [
    ["Teams", data.teams],
    ["Agents", data.agents],
    ["Criteria", data.criteria],
  ].filter(([, changes]) => changes.length);
  return html`<p class="muted">What changed in ${span(to - from)}.</p>
    <div class="columns even">
      <${Card} title="States"
        >${
          listed.length
            ? listed.map(
                ([title, changes]) =>
                  html`<h3 key=${title}>${title}</h3>
                    <ul class="stack small">
                      ${changes.map((one) => html`<li key=${one.name}>${one.name}: ${one.before ? plain(one.before) : "not there"} → ${one.after ? plain(one.after) : "not there"}</li>`)}
                    </ul>`,
              )
            : html`<p class="muted small">Nothing.</p>`
        }<//
      >
      <${Card} title="Commits"><${Feed} events=${data.commits.slice().reverse()} tall /><//>
    </div>
    <${Card} title="Messages" aside=${many(data.messages.length, "message")}
      ><${Messages} messages=${data.messages}
    /><//>
    <div class="compare">
      ${data.screens.map(
        (one) =>
          html`<section key=${one.target} class="card" aria-label=${one.target}>
            <h2>${one.target}</h2>
            ${
              one.diff.length
                ? html`<pre class="screen" tabindex="0" role="group" aria-label=${`How ${one.target} changed`}>
${one.diff.map(
                      (line, n) =>
                        html`<span
                          key=${n}
                          class=${line.startsWith("+") ? "diff-added" : line.startsWith("-") ? "diff-removed" : ""}
                          >${line}
                        </span>`,
                    )}</pre>`
                : html`<p class="muted small">
                    ${one.before === one.after ? "Only colours changed." : `${one.before}, then ${one.after}`}
                  </p>`
            }
          </section>`,
      )}
    </div>`;
}
