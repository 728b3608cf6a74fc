// What the work has cost, what limits it, and what the machine has left.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Windows } from "./limits.js";
import { Card, useAnswer } from "./parts.js";
import { get, teams, useLive } from "./server.js";
import { money, short } from "./words.js";

const BY = ["agent", "role", "model", "day"];
const DAY = 86_400_000;
const SINCE = { 1: "today and yesterday", 7: "7 days", 30: "30 days", "": "all time" };

export function Usage() {
  const { pieces } = useLive();
  const [by, setBy] = useState("agent");
  const [days, setDays] = useState("7");
  const [team, setTeam] = useState("");
  const since = days ? Math.floor(Date.now() / DAY - Number(days)) * DAY : undefined;
  const { data, error } = useAnswer(() => get("/costs", { by, since, orchestration: team }), [by, since, team]);
  const { data: daily } = useAnswer(() => get("/costs", { by: "day", since, orchestration: team }), [since, team]);
  return html`<h1>Usage</h1>
    <div class="fields">
      <label
        >By<select value=${by} onChange=${(event) => setBy(event.target.value)}>
          ${BY.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select></label
      >
      <label
        >Since<select value=${days} onChange=${(event) => setDays(event.target.value)}>
          ${Object.entries(SINCE).map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}
        </select></label
      >
      <label
        >Team<select value=${team} onChange=${(event) => setTeam(event.target.value)}>
          <option value="">all</option>
          ${teams().map((one) => html`<option key=${one.id} value=${one.id}>${one.session}</option>`)}
        </select></label
      >
    </div>
    ${error && html`<p class="said tone-warn" role="alert">${error}</p>`}
    <div class="columns">
      <div class="stack">
        <${Card} title="Spent by day" aside="at list prices, in dollars"
          >${daily && html`<${Days} rows=${daily.rows} />`}<//
        >
        <${Card} title=${`Spent by ${by}`} aside=${data && `${money(data.total.usd)} in all`}
          >${data && html`<${Bills} rows=${data.rows} notes=${data.notes} />`}<//
        >
      </div>
      <${Windows} limits=${pieces.get("limits")} />
    </div>`;
}

function Bills({ rows, notes }) {
  if (!rows.length) return html`<p class="muted small">Nothing has been counted in this time.</p>`;
  const sum = (tokens) => Object.values(tokens).reduce((all, one) => all + one, 0);
  return html`<table class="folds">
      <thead>
        <tr>
          <th>Whom</th>
          <th class="right">Answers</th>
          <th class="right">Tokens</th>
          <th class="right">Supervision</th>
          <th class="right">Dollars</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (one) =>
            html`<tr key=${one.name}>
              <td>${one.name}</td>
              <td data-label="Answers" class="right">${one.answers.toLocaleString()}</td>
              <td data-label="Tokens" class="right">${short(sum(one.tokens))}</td>
              <td data-label="Supervision" class="right">${money(one.supervision.usd)}</td>
              <td data-label="Dollars" class="right">${money(one.usd)}</td>
            </tr>`,
        )}
      </tbody>
    </table>
    ${notes.map((one, n) => html`<p key=${n} class="small muted">${one}</p>`)}`;
}

/** Dollars by day as bars; the table below it says the same in words. */
function Days({ rows }) {
  const place = useRef(null);
  useEffect(() => {
    if (!rows.length) return undefined;
    const days = rows.map((one) => Date.parse(`${one.name}T12:00:00Z`) / 1000),
      spent = rows.map((one) => one.usd);
    const axis = {
      stroke: () => getComputedStyle(place.current).color,
      grid: { stroke: "#8884", width: 1 },
      ticks: { show: false },
    };
    const options = {
      width: place.current.clientWidth,
      height: 220,
      legend: { show: false },
      cursor: { y: false },
      scales: {
        x: { range: () => [days[0] - 43200, days.at(-1) + 43200] },
        y: { range: (_, __, most) => [0, (most || 1) * 1.1] },
      },
      series: [
        {},
        {
          label: "dollars",
          stroke: "#4a7ddb",
          fill: "#4a7ddbaa",
          paths: uPlot.paths.bars({ size: [0.7, 60] }),
          points: { show: false },
        },
      ],
      axes: [
        { ...axis, space: 60 },
        { ...axis, size: 56, values: (_, values) => values.map((one) => `$${one}`) },
      ],
    };
    const chart = new uPlot(options, [days, spent], place.current);
    const watch = new ResizeObserver(() => chart.setSize({ width: place.current.clientWidth, height: 220 }));
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      chart.destroy();
    };
  }, [rows]);
  if (!rows.length) return html`<p class="muted small">Nothing has been counted in this time.</p>`;
  return html`<div ref=${place} class="chart" aria-hidden="true"></div>
    <p class="small muted">
      ${rows
        .slice(-7)
        .map((one) => `${one.name}: ${money(one.usd)}`)
        .join(" · ")}
    </p>`;
}
