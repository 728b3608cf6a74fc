// One team: who does what, how they write to each other, what one of them shows, and what has come of the work.

import { html, useState } from "./vendor/htm-preact.js";
import { Graph } from "./graph.js";
import { Act, Ago, Card, Clock, Command, Empty, Feed, State, joined, tone, useAnswer } from "./parts.js";
import { Screen } from "./screen.js";
import { get, isReadOnly, teams, useLive } from "./server.js";
import { many, money, plain, short, span } from "./words.js";

const LIVING = ["starting", "running", "paused", "needs_attention"];

/** `id` names one of several teams of the session; without it, the live one or the last. */
export function Team({ session, id }) {
  const { pieces, events } = useLive();
  const mine = teams().filter((one) => one.session === session);
  const team = mine.find((one) => one.id === id) ?? mine.find((one) => LIVING.includes(one.status)) ?? mine[0];
  if (!team) {
    return pieces.has("machine")
      ? html`<${Empty}
          ><h1>No team in session ${session}</h1>
          <p>It may have ended more than a day ago: <a href=${`#/timeline/${session}`}>its timeline</a>, or</p>
          <${Command} text=${`claude_control.py report ${session}`}
        /><//>`
      : html`<h1 class="hidden">${session}</h1>
          <${Empty}>Looking…<//>`;
  }
  return html`<${Head} team=${team} /><${Body} key=${team.id} team=${team} events=${events} />`;
}

function Head({ team }) {
  const isLiving = LIVING.includes(team.status),
    path = `/orchestrations/${team.id}`;
  return html`<section class="stack" aria-label="Team">
    <div class="row between">
      <div class="row">
        <h1>${team.session}</h1>
        <${State} of=${team.status} />${team.program === "rehearsal" && html`<span class="tag">rehearsal</span>`}
      </div>
      ${
        isLiving &&
        !isReadOnly &&
        html`<div class="row">
          ${
            team.status === "paused"
              ? html`<${Act} path=${`${path}/resume`} kind="main">Let it go on<//>`
              : html`<${Act}
                  path=${`${path}/pause`}
                  ask="Every agent stands still after its turn, and goes on where it was when you say so."
                  >Pause<//
                >`
          }
          <${Act}
            path=${`${path}/stop`}
            kind="danger"
            ask=${`End the agents of ${team.session}. Worktrees, branches and conversations stay.`}
            >Stop<//
          >
        </div>`
      }
    </div>
    <p>${team.title}</p>
    ${isLiving && team.why && html`<p class="said ${tone(team.need)}">${team.why}</p>`}
    ${team.outcome && html`<p class="said">${team.outcome}</p>`}
    <div class="row small muted">
      <span class="mono">${team.project}</span><span>begun <${Ago} at=${team.created_at} /></span>
      <span>${money(team.spent.usd)}, ${short(team.spent.tokens)} tokens</span>
      ${isLiving && html`<${Command} text=${`tmux attach -t ${team.session}`} />`}
      <a href=${`#/timeline/${team.session}`}>Timeline</a>
    </div>
  </section>`;
}

function Body({ team, events }) {
  const [chosen, choose] = useState(null);
  const agent = team.agents.find((one) => one.id === chosen) ?? team.agents[0];
  const own = events.filter((one) => one.orchestration === team.id && one.sentence);
  // What is asked for by a request is asked again when something of this team has happened.
  const newest = own[0]?.id ?? 0;
  const path = `/orchestrations/${team.id}`;
  const { data, error } = useAnswer(() => get(path), [path, newest]);
  const { data: judged } = useAnswer(() => get(`${path}/criteria`), [path, newest]);
  const { data: handed } = useAnswer(() => get(`${path}/handovers`), [path, newest]);
  const { data: past } = useAnswer(
    () => get("/timeline", { since: team.created_at - 1, until: Date.now(), orchestration: team.id }),
    [path],
  );
  return html` ${error && html`<p class="said tone-warn" role="alert">${error}</p>`}
    <div class="columns">
      <div class="stack">
        <${Card} title="Messages between agents"><${Graph} agents=${team.agents} messages=${flows(data)} /><//>
        <div class="agents" role="group" aria-label="Agents">
          ${team.agents.map(
            (one) =>
              html`<${Agent} key=${one.id} agent=${one} isChosen=${one === agent} onChoose=${() => choose(one.id)} />`,
          )}
        </div>
      </div>
      ${agent && html`<${Screen} agent=${agent} />`}
    </div>
    <div class="columns even">
      <${Criteria} team=${team} found=${judged?.criteria} />
      <${Work} team=${team} newest=${newest} />
      <div class="stack">
        <${Ahead} found=${data?.check_ins} /><${Budgets} found=${data?.budgets} /><${HandOvers}
          lanes=${handed?.lanes}
        />
      </div>
      <${Card} title="What has happened"><${Feed} events=${joined(own, past?.events)} tall /><//>
    </div>`;
}

const flows = (data) =>
  (data?.flows ?? []).map((one) => ({
    sender: one.sender,
    target: one.role,
    count: one.messages,
    waiting: one.pending,
    mean_ms: one.mean_ms,
  }));

function Agent({ agent, isChosen, onChoose }) {
  const notes = [
    agent.held,
    agent.waiting ? `${many(agent.waiting, "message")} on the way` : null,
    agent.waits_for?.length ? `waits for ${agent.waits_for.join(", ")}` : null,
    agent.candidate ? `its work is ${plain(agent.candidate)}` : null,
    agent.reported ? "has reported" : null,
  ].filter(Boolean);
  const { context, commit, works_on: work } = agent;
  return html`<button type="button" class="agent" aria-pressed=${isChosen} onClick=${onChoose}>
    <strong>${agent.role}</strong
    ><${State} of=${agent.state}>${agent.state} ${agent.since && html`<${Ago} at=${agent.since} since />`}<//>
    ${work && html`<span class="about">on: ${work.text} <span class="muted">(${work.sender})</span></span>`}
    ${
      (context || commit?.is_own) &&
      html`<span class="about">
        ${context && html`context ${Math.round((100 * context.tokens) / context.most)} % <progress class="meter" max=${context.most} value=${context.tokens} aria-label="Context used"></progress> `}
        ${commit?.is_own && html`<span class="mono">${commit.id.slice(0, 7)}</span> ${commit.subject}, <${Ago} at=${commit.at} />`}</span
      >`
    }
    ${notes.length > 0 && html`<span class="about">${notes.join(" · ")}</span>`}
  </button>`;
}

function Criteria({ team, found }) {
  const { total, hold } = team.criteria;
  if (!total)
    return html`<${Card} title="Criteria"
      ><p class="muted small">The spec names none. The team is done when its Orchestrator reports.</p><//
    >`;
  return html`<${Card} title="Criteria" aside=${`${hold} of ${total} hold`}>
    <progress max=${total} value=${hold} aria-label="Criteria that hold"></progress>
    <table class="folds">
      <thead>
        <tr>
          <th></th>
          <th>Criterion</th>
          <th>State</th>
          <th>Evidence</th>
        </tr>
      </thead>
      <tbody>
        ${(found ?? []).map(
          (one) =>
            html`<tr key=${one.id}>
              <td class="mono nowrap">${one.id}</td>
              <td>${one.text}${one.command && html`<br /><code class="muted">${one.command}</code>`}</td>
              <td data-label="State"><${State} of=${one.state} /></td>
              <td data-label="Evidence" class="small">${evidence(one)}</td>
            </tr>`,
        )}
      </tbody>
    </table><//
  >`;
}

function evidence({ closing, last }) {
  if (closing)
    return html`closed by ${closing.by} at <code>${closing.commit.slice(0, 7)}</code>, <${Ago} at=${closing.at} />:
      ${closing.reason}`;
  if (!last) return html`<span class="muted">none yet</span>`;
  return html`exit code ${last.exit_code} at <code>${last.commit.slice(0, 7)}</code>, <${Ago} at=${last.at} /> ${
      last.exit_code !== 0 &&
      last.output &&
      html`<details>
        <summary>output</summary>
        <pre class="screen">${last.output}</pre>
      </details>`
    }`;
}

function Work({ team, newest }) {
  const isLiving = LIVING.includes(team.status);
  const { data, error } = useAnswer(
    () => (isLiving ? get(`/orchestrations/${team.id}/git`) : Promise.resolve({})),
    [team.id, isLiving, newest],
  );
  const standing = new Map((data?.agents ?? []).map((one) => [one.role, one]));
  return html`<${Card} title="Work" aside=${plain(team.delivery)}>
    ${team.delivery_outcome && html`<p class="said">${team.delivery_outcome}</p>`}
    ${team.merge_trouble && html`<p class="said tone-warn">not merged now: ${team.merge_trouble}</p>`}
    ${(error ?? data?.problem) && html`<p class="said tone-warn small">${error ?? data.problem}</p>`}
    <table class="folds">
      <thead>
        <tr>
          <th>Branch</th>
          <th>Last commit</th>
          <th>Offered</th>
        </tr>
      </thead>
      <tbody>
        ${team.agents.map((one) => html`<${Branch} key=${one.id} agent=${one} standing=${standing.get(one.role)} />`)}
        <tr>
          <td class="mono small">${team.integration_branch}</td>
          <td class="small muted" colspan="2">
            where all work comes together, then ${team.starting_branch ?? "a detached HEAD"}
          </td>
        </tr>
      </tbody>
    </table><//
  >`;
}

function Branch({ agent, standing }) {
  const { commit, candidate } = agent;
  const notes = standing
    ? [
        standing.problem,
        standing.dirty ? `${many(standing.dirty, "file")} not committed` : null,
        standing.ahead ? `${standing.ahead} ahead` : null,
        standing.behind ? `${standing.behind} behind` : null,
        standing.under_way &&
          `${standing.under_way} under way${standing.conflicts.length ? `, in conflict: ${standing.conflicts.join(", ")}` : ""}`,
        ...standing.overlaps.map((other) => `cannot be merged with ${other.role} now: ${other.files.join(", ")}`),
      ].filter(Boolean)
    : [];
  return html`<tr>
    <td class="mono small">
      ${agent.branch}${notes.length > 0 && html`<br /><span class="muted">${notes.join(" · ")}</span>`}
    </td>
    <td data-label="Commit" class="small">
      ${commit?.is_own ? html`<code>${commit.id.slice(0, 7)}</code> ${commit.subject}` : html`<span class="muted">none of its own</span>`}
    </td>
    <td data-label="Offered">
      ${candidate ? html`<${State} of=${candidate} />` : html`<span class="muted small">nothing</span>`}
    </td>
  </tr>`;
}

function Ahead({ found }) {
  return html`<${Card} title="Check-ins ahead"
    >${
      found?.length
        ? html`<ul class="feed">
            ${found
              .slice(0, 12)
              .map(
                (one) =>
                  html`<li key=${one.id}>
                    <${Clock} at=${one.due_at} /><span
                      >${one.target}: ${one.note}
                      ${one.due_at > Date.now() && html` <span class="muted small">in ${span(one.due_at - Date.now())}</span>`}</span
                    >
                  </li>`,
              )}
          </ul>`
        : html`<p class="muted small">None.</p>`
    }<//
  >`;
}

function Budgets({ found }) {
  if (!found?.length) return null;
  return html`<${Card} title="Budgets"
    ><ul class="stack">
      ${found.map(
        (one, n) =>
          html`<li key=${n} class="small">
            <div class="row between">
              <span>${one.sentence}</span
              ><${State} of=${one.used >= one.limit ? "failed" : "holds"}
                >${Math.round((100 * one.used) / one.limit)} % used<//
              >
            </div>
            <progress
              max=${one.limit}
              value=${Math.min(one.used, one.limit)}
              aria-label="Used of the budget"
            ></progress>
          </li>`,
      )}
    </ul><//
  >`;
}

function HandOvers({ lanes }) {
  const used = (lanes ?? []).filter((one) => one.told.count || one.not_arrived);
  if (!used.length) return null;
  return html`<${Card} title="Hand-overs" aside="median, slowest"
    ><table class="folds">
      <thead>
        <tr>
          <th>From, to</th>
          <th>Until told</th>
          <th>Until taken on</th>
        </tr>
      </thead>
      <tbody>
        ${used.map(
          (one) =>
            html`<tr key=${`${one.role} ${one.taker}`}>
              <td>${one.role} to ${one.taker}</td>
              <td data-label="Until told" class="number">${took(one.told)}</td>
              <td data-label="Until taken on" class="number">${took(one.answered)}</td>
            </tr>`,
        )}
      </tbody>
    </table><//
  >`;
}

const took = ({ count, median, longest }) => (count ? `${span(1000 * median)}, ${span(1000 * longest)}` : "not yet");
