// The overview: what needs you first, then each team, and what the machine has in front of it.

import { html } from "./vendor/htm-preact.js";
import { Windows } from "./limits.js";
import { Act, Ago, Card, Command, Empty, Feed, State, joined, tone, useAnswer } from "./parts.js";
import { get, isReadOnly, teams, useLive } from "./server.js";
import { bytes, folder, many, money, plain, span } from "./words.js";

export function Overview() {
  const { pieces, events } = useLive();
  const { data: past } = useAnswer(() => get("/events"), []);
  if (!pieces.has("machine"))
    return html`<h1 class="hidden">Overview</h1>
      <${Empty}>Looking…<//>`;
  const all = teams();
  const living = all.filter((one) => one.need !== "over"),
    ended = all.filter((one) => one.need === "over");
  return html` <h1 class="hidden">Overview</h1>
    <${Needs} teams=${living} machine=${pieces.get("machine")} limits=${pieces.get("limits")} />
    ${living.length > 0 && html`<section aria-label="Teams at work" class="cards">${living.map((one) => html`<${Team} key=${one.id} team=${one} />`)}</section>`}
    ${all.length === 0 && html`<${Nobody} />`}
    <div class="columns">
      <${Card} title="What has happened">
        <${Feed} events=${joined(events, past?.events).slice(0, 100)} tall showTeam
      /><//>
      <div class="stack">
        <${Windows} limits=${pieces.get("limits")} />
        <${Machine} machine=${pieces.get("machine")} queue=${pieces.get("queue")} spent=${all} />
        ${pieces.get("fleet") && html`<${Fleet} fleet=${pieces.get("fleet")} />`}
      </div>
    </div>
    ${ended.length > 0 && html`<${Ended} teams=${ended} />`}`;
}

function Needs({ teams: living, machine, limits }) {
  const asks = living.flatMap((team) => team.asks.map((ask) => ({ team, ask })));
  const needy = living.filter((team) => team.need === "person" || team.need === "look");
  const nobodyFires = !machine.scheduler_pid && living.length > 0;
  const held = limits?.limits ?? [];
  if (!asks.length && !needy.length && !nobodyFires && !machine.tmux_trouble && !held.length) {
    return living.length ? html`<p class="card need tone-good" role="status">Nothing needs you.</p>` : null;
  }
  return html`<section
    class="card need ${asks.length || needy.some((one) => one.need === "person") ? "tone-bad" : "tone-warn"}"
    aria-labelledby="needs"
  >
    <h2 id="needs">Needs you</h2>
    <ul class="needs">
      ${machine.tmux_trouble && html`<li><span>tmux cannot be asked: ${machine.tmux_trouble}</span></li>`}
      ${nobodyFires && html`<li><span>No scheduler runs: nothing fires check-ins or delivers what waits.</span><${Command} text="scheduler.py --daemon" /></li>`}
      ${asks.map(
        ({ team, ask }) =>
          html`<li key=${`ask ${ask.id}`}>
            <span
              ><a href=${`#/team/${team.session}`}>${team.session}</a>: ${ask.requester} asks ${ask.target ?? "you"}:
              ${ask.what}</span
            >
            <span class="row"
              >${
                !isReadOnly &&
                html`<${Act} path=${`/authorizations/${ask.id}`} body=${{ yes: true }}>Yes<//>
                  <${Act} path=${`/authorizations/${ask.id}`} body=${{ yes: false }}>No<//>`
              } <span class="small muted">no by itself in ${span(Math.max(0, ask.due_at - Date.now()))}</span></span
            >
          </li>`,
      )}
      ${needy.map(
        (team) =>
          html`<li key=${team.id}>
            <span><a href=${`#/team/${team.session}`}>${team.session}</a>: ${team.why}</span>
            <span class="small muted"><${Ago} at=${blockedSince(team)} since /></span>
          </li>`,
      )}
      ${held.map(
        (limit) =>
          html`<li key=${`limit ${limit.id}`}>
            <span>${limit.target ?? "The account"} is limited (${plain(limit.kind)}): ${limit.said}</span>
            <span class="small muted"
              >${limit.resets_at ? html`goes on in ${span(Math.max(0, limit.resets_at - Date.now()))}` : "no end is known"}</span
            >
          </li>`,
      )}
    </ul>
  </section>`;
}

// Since when a team has been waiting: its first agent that asks or is gone, or else its last change.
function blockedSince(team) {
  const since = team.agents
    .filter((one) => ["asking", "gone"].includes(one.state) && one.since)
    .map((one) => one.since);
  return since.length ? Math.min(...since) : team.updated_at;
}

function Team({ team }) {
  const { total, hold } = team.criteria;
  const unread = team.agents.reduce((sum, one) => sum + one.waiting, 0);
  return html`<a class="card" href=${`#/team/${team.session}`} aria-label=${`${team.session}, ${plain(team.status)}`}>
    <header>
      <h2 class="clip">${team.session}</h2>
      <${State} of=${team.status} />
    </header>
    <p class="clip" title=${team.title}>${team.title}</p>
    ${
      total > 0 &&
      html`<div>
        <progress max=${total} value=${hold} aria-label="Criteria that hold"></progress>
        <span class="small muted">${hold} of ${many(total, "criterion", "criteria")} hold</span>
      </div>`
    }
    <div class="row">
      ${team.agents.map((one) => html`<span key=${one.id} class="state ${tone(one.state)}" title=${`${one.role}: ${one.state}`}>${one.role}</span>`)}
    </div>
    <p class="small muted">
      ${folder(team.project)}${team.program === "rehearsal" ? ", rehearsal" : ""} · ${money(team.spent.usd)}
      ${unread > 0 ? ` · ${many(unread, "message")} on the way` : ""} · begun <${Ago} at=${team.created_at} />
    </p>
    ${team.why && html`<p class="small ${tone(team.need)}">${team.why}</p>`}
  </a>`;
}

function Machine({ machine, queue, spent }) {
  const waiting = queue?.entries.length ?? 0;
  const teamsSpent = spent.reduce((sum, team) => sum + (team.spent.usd ?? 0), 0);
  const midnight = new Date().setHours(0, 0, 0, 0);
  const { data: today } = useAnswer(
    () => get("/costs", { by: "day", since: midnight }),
    [midnight, Math.round(teamsSpent * 100)],
  );
  return html`<${Card} title="Machine">
    <dl class="stack small">
      <div class="row between">
        <dt class="muted">Scheduler</dt>
        <dd>
          ${
            machine.scheduler_pid
              ? html`<${State} of="running">runs <${Ago} at=${machine.scheduler_since} since /><//>`
              : html`<${State} of="gone">not running<//>`
          }
        </dd>
      </div>
      <div class="row between">
        <dt class="muted">Queue</dt>
        <dd>
          <a href="#/queue">${waiting ? `${many(waiting, "spec")} to do` : "empty"}</a
          >${queue?.paused_at ? ", paused" : ""}
        </dd>
      </div>
      <div class="row between">
        <dt class="muted">Spent today</dt>
        <dd><a href="#/usage">${today ? money(today.total.usd) : "…"}</a></dd>
      </div>
      <div class="row between">
        <dt class="muted">Load</dt>
        <dd class="number">${machine.load} on ${many(machine.cores, "core")}</dd>
      </div>
      <div class="row between">
        <dt class="muted">Disk</dt>
        <dd class="number">${bytes(machine.disk_free)} free of ${bytes(machine.disk_total)}</dd>
      </div>
      <div class="row between">
        <dt class="muted">tmux</dt>
        <dd class="number">${machine.panes === null ? "cannot be asked" : many(machine.panes, "pane")}</dd>
      </div>
    </dl><//
  >`;
}

function Fleet({ fleet }) {
  const { link, hosts, waiting, accounts } = fleet;
  return html`<${Card} title="Fleet" aside=${many(hosts.length, "host")}>
    <p class="small ${link.is_connected ? "muted" : "tone-warn"}">${link.sentence}</p>
    <ul class="stack small">
      ${hosts.map(
        (one) =>
          html`<li key=${one.name}>
            <div class="row between">
              <${State} of=${one.is_seen ? "running" : "stale"}>${one.name}<//>
              <span class="muted">${one.is_seen ? "seen" : "not seen for"} <${Ago} at=${one.seen_at} bare=${!one.is_seen} /></span>
              <span class="number">${!one.trouble && `${one.agents} of ${many(one.capacity, "agent")}`}</span>
            </div>
            ${one.notes.map((note) => html`<p class="tone-warn">${note}</p>`)}
            ${(one.record.teams ?? []).map((team) => html`<p class="muted clip">${team.session}, ${plain(team.status)}</p>`)}
          </li>`,
      )}
    </ul>
    ${accounts.map((line) => html`<p class="small">${line}</p>`)}
    ${waiting.length > 0 && html`<p class="small">Waits to be sent: ${waiting.join(", ")}</p>`}<//
  >`;
}

function Ended({ teams: ended }) {
  return html`<${Card} title="Ended within a day">
    <table class="folds">
      <thead>
        <tr>
          <th>Team</th>
          <th>Spec</th>
          <th>End</th>
          <th>Criteria</th>
          <th class="right">Spent</th>
        </tr>
      </thead>
      <tbody>
        ${ended.map(
          (one) =>
            html`<tr key=${one.id}>
              <td><a href=${`#/team/${one.session}/${one.id}`}>${one.session}</a></td>
              <td data-label="Spec">${one.title}</td>
              <td data-label="End">
                <${State} of=${one.status} /> <span class="small muted"><${Ago} at=${one.updated_at} /></span>
              </td>
              <td data-label="Criteria" class="number">
                ${one.criteria.total ? `${one.criteria.hold}/${one.criteria.total}` : "none"}
              </td>
              <td data-label="Spent" class="right">${money(one.spent.usd)}</td>
            </tr>`,
        )}
      </tbody>
    </table><//
  >`;
}

const Nobody = () =>
  html`<${Empty}
    ><h2>No team is running</h2>
    <p>Turn a spec into a team, or watch a rehearsal that needs no account:</p>
    <${Command} text="auto_orchestrate.py --spec spec.md" /><${Command} text="auto_orchestrate.py --demo"
  /><//>`;
