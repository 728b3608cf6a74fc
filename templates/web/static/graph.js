// The team as a graph of its messages: who writes to whom, how often, and how long until it was acknowledged.

import { html } from "./vendor/htm-preact.js";
import { many, span } from "./words.js";
import { tone } from "./parts.js";

const WIDTH = 640,
  HEIGHT = 340,
  RADIUS = 17,
  MIDDLE = [WIDTH / 2, HEIGHT / 2];

/** The Orchestrator stands in the middle, the others around it; `messages` are {sender, target, count, waiting, mean_ms}. */
export function Graph({ agents, messages }) {
  const places = placed(agents.map((one) => one.role));
  const edges = messages.filter((one) => places.has(one.sender) && places.has(one.target) && one.sender !== one.target);
  const most = Math.max(1, ...edges.map((one) => one.count));
  return html`<svg class="graph" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${told(edges)}>
    <defs>
      <marker
        id="arrow"
        viewBox="0 0 8 8"
        refX="7"
        refY="4"
        markerWidth="11"
        markerHeight="11"
        markerUnits="userSpaceOnUse"
        orient="auto-start-reverse"
      >
        <path class="arrow" d="M0 0 8 4 0 8z" />
      </marker>
    </defs>
    ${edges.map((one) => html`<${Edge} key=${`${one.sender} ${one.target}`} one=${one} places=${places} most=${most} />`)}
    ${agents.map(
      (one) =>
        html`<g key=${one.role} class=${tone(one.state)} transform="translate(${places.get(one.role)})">
          <title>${one.role}: ${one.state}</title><circle r=${RADIUS} />
          <text y=${places.get(one.role)[1] < MIDDLE[1] ? -RADIUS - 8 : RADIUS + 15}>${one.role}</text></g
        >`,
    )}
  </svg>`;
}

function placed(roles) {
  const [first, ...others] = roles;
  if (others.length === 0) return new Map([[first, MIDDLE]]);
  const around = others.map((role, n) => {
    const angle = (2 * Math.PI * n) / others.length - Math.PI / 2 + (others.length === 1 ? Math.PI / 2 : 0);
    return [role, [MIDDLE[0] + 235 * Math.cos(angle), MIDDLE[1] + 125 * Math.sin(angle)]];
  });
  return new Map([[first, MIDDLE], ...around]);
}

function Edge({ one, places, most }) {
  const [from, to] = [places.get(one.sender), places.get(one.target)];
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = Math.hypot(dx, dy);
  const [ux, uy] = [dx / length, dy / length];
  // A little to the side, so that an answer has a line of its own.
  const [sx, sy] = [-uy * 9, ux * 9];
  const start = [from[0] + ux * RADIUS + sx, from[1] + uy * RADIUS + sy];
  const end = [to[0] - ux * (RADIUS + 4) + sx, to[1] - uy * (RADIUS + 4) + sy];
  const label = [start[0] + (end[0] - start[0]) * 0.6 + sx, start[1] + (end[1] - start[1]) * 0.6 + sy + 4];
  return html`<g
    ><title>${sentence(one)}</title>
    <line
      class="edge ${one.waiting ? "waits" : ""}"
      x1=${start[0]}
      y1=${start[1]}
      x2=${end[0]}
      y2=${end[1]}
      stroke-width=${1 + (3 * one.count) / most}
      marker-end="url(#arrow)"
    />
    <text class="count" x=${label[0]} y=${label[1]}>${one.count}</text></g
  >`;
}

function sentence(one) {
  const took = one.mean_ms === null ? "" : `, acknowledged in ${span(one.mean_ms)} on average`;
  const waits = one.waiting ? `, ${many(one.waiting, "message")} on the way` : "";
  return `${one.sender} to ${one.target}: ${many(one.count, "message")}${took}${waits}`;
}

const told = (edges) =>
  edges.length ? `Messages. ${edges.map(sentence).join(". ")}` : "No messages between agents yet";
