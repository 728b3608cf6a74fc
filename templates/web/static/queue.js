// The queue of specs: what runs, what waits in which order, and the story of every attempt.

import { html, useState } from "./vendor/htm-preact.js";
import { Act, Ago, Card, Command, Empty, State, useAnswer } from "./parts.js";
import { change, get, isReadOnly, useLive } from "./server.js";
import { folder, many, plain, span } from "./words.js";

export function Queue() {
  const { pieces, events } = useLive();
  const queue = pieces.get("queue");
  const [chosen, choose] = useState(null);
  const [version, again] = useState(0);
  const newest = events.find((one) => one.kind.startsWith("queue."))?.id ?? 0;
  // Those that are over come with a request; what is unfinished is told.
  const { data, error } = useAnswer(() => get("/queue", { all: true }), [newest, queue, version]);
  if (!queue)
    return html`<h1>Queue</h1>
      <${Empty}>Looking…<//>`;
  const entries = data?.entries ?? queue.entries,
    waiting = queue.entries.filter((one) => one.status === "queued").map((one) => one.id);
  return html` <div class="row between">
      <h1>Queue</h1>
      ${
        !isReadOnly &&
        html`<div class="row">
          ${
            queue.paused_at
              ? html`<span class="small muted">paused <${Ago} at=${queue.paused_at} /></span
                  ><${Act} path="/queue/resume" kind="main">Let it drain<//>`
              : html`<${Act} path="/queue/pause">Pause<//>`
          }
        </div>`
      }
    </div>
    ${error && html`<p class="said tone-warn" role="alert">${error}</p>`} ${!isReadOnly && html`<${Add} />`}
    <${Card} title="Specs" aside=${many(entries.length, "entry", "entries")}>
      ${
        entries.length
          ? html`<table class="folds">
              <thead>
                <tr>
                  <th></th>
                  <th>Spec</th>
                  <th>Project</th>
                  <th>State</th>
                  <th class="right">Priority</th>
                  <th>Attempts</th>
                  <th></th>
                </tr>
              </thead>
              <tbody>
                ${entries.map((one) => html`<${Row} key=${one.id} entry=${one} isChosen=${chosen === one.id} choose=${choose} order=${waiting} onDone=${() => again(version + 1)} />`)}
              </tbody>
            </table>`
          : html`<${Empty}
              ><p>The queue is empty.</p>
              <${Command} text="scheduler.py --queue-add spec.md ~/projects/webapp"
            /><//>`
      }
    <//>
    ${chosen && html`<${Story} id=${chosen} version=${`${newest} ${version}`} />`}`;
}

function Row({ entry, isChosen, choose, order, onDone }) {
  const path = `/queue/${entry.id}`,
    place = order.indexOf(entry.id);
  const act = (to, label, more = {}) => html`<${Act} path=${`${path}/${to}`} onDone=${onDone} ...${more}>${label}<//>`;
  return html`<tr>
    <td class="number muted">${entry.id}</td>
    <td>
      <button type="button" class="plain" aria-expanded=${isChosen} onClick=${() => choose(isChosen ? null : entry.id)}>
        ${folder(entry.spec)}
      </button>
    </td>
    <td data-label="Project" title=${entry.project}>${folder(entry.project)}</td>
    <td data-label="State">
      <${State} of=${entry.status}>${plain(entry.state)}<//
      >${entry.reason && html`<br /><span class="small muted">${entry.reason.split("\n")[0]}</span>`}
    </td>
    <td data-label="Priority" class="right">${entry.priority}</td>
    <td data-label="Attempts" class="number">${entry.attempts}</td>
    <td>
      ${
        !isReadOnly &&
        html`<span class="row">
          ${place > 0 && html`<${Act} path="/queue/order" body=${{ ids: moved(order, place, place - 1) }} kind="plain" onDone=${onDone}>Earlier<//>`}
          ${place >= 0 && place < order.length - 1 && html`<${Act} path="/queue/order" body=${{ ids: moved(order, place, place + 1) }} kind="plain" onDone=${onDone}>Later<//>`}
          ${["failed", "abandoned", "cancelled"].includes(entry.status) && act("retry", "Again")}
          ${["queued", "running", "failed"].includes(entry.status) && act("cancel", "Cancel", { ask: `End entry ${entry.id} for good${entry.status === "running" ? ", with its team; its work stays" : ""}.` })}
        </span>`
      }
    </td>
  </tr>`;
}

function moved(ids, from, to) {
  const others = ids.filter((_, place) => place !== from);
  return [...others.slice(0, to), ids[from], ...others.slice(to)];
}

function Add() {
  const [said, setSaid] = useState(null);
  const [from, setFrom] = useState("file");
  const add = async (event) => {
    event.preventDefault();
    const form = event.target,
      fields = new FormData(form),
      file = fields.get("file");
    const how = { project: fields.get("project"), priority: Number(fields.get("priority") || 0) };
    const found =
      from === "file"
        ? await change("/queue/text", { ...how, name: file.name, text: await file.text() })
        : await change("/queue", { ...how, path: fields.get("path") });
    setSaid(found);
    if (!found.error) form.reset();
  };
  return html`<${Card} title="Add a spec"
    ><form class="fields" onSubmit=${add}>
      <label
        >From<select value=${from} onChange=${(event) => setFrom(event.target.value)}>
          <option value="file">a file of this computer</option>
          <option value="path">a path on the server</option>
        </select></label
      >
      ${
        from === "file"
          ? html`<label>Spec<input type="file" name="file" accept=".md,text/markdown" required /></label>`
          : html`<label>Spec<input name="path" placeholder="/projects/webapp/spec.md" required /></label>`
      }
      <label>Project<input name="project" placeholder="/projects/webapp" required /></label>
      <label>Priority<input name="priority" type="number" min="-1000" max="1000" value="0" /></label>
      <button class="main">Queue it</button>
    </form>
    ${said && html`<p role="status" class="said ${said.error ? "tone-bad" : "tone-good"}">${said.error ?? "queued"}</p>`}<//
  >`;
}

function Story({ id, version }) {
  const { data, error } = useAnswer(() => get(`/queue/${id}`), [id, version]);
  if (error) return html`<p class="said tone-warn" role="alert">${error}</p>`;
  if (!data) return null;
  const attempts = data.story ?? [];
  return html`<${Card} title=${`Entry ${id}: its story`} aside=${data.spec}>
    ${
      attempts.length
        ? html`<ol class="stack">
            ${attempts.map(
              (one, n) =>
                html`<li key=${n} class="said stack">
                  <div class="row between">
                    <strong>Attempt ${one.number ?? n + 1}</strong><${State} of=${one.outcome ?? "running"} />
                  </div>
                  <p class="small muted">
                    begun
                    <${Ago} at=${one.started_at} />${one.ended_at ? `, ran ${span(one.ended_at - one.started_at)}` : ""}
                    ${one.session && html`, <a href=${`#/team/${one.session}`}>${one.session}</a>`}
                  </p>
                  ${one.reason && html`<p>${one.reason}</p>`}
                </li>`,
            )}
          </ol>`
        : html`<p class="muted small">Not tried yet.</p>`
    }<//
  >`;
}
