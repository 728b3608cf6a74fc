// What lies ahead of limits and budgets, on a line of time.

import { html } from "./vendor/htm-preact.js";
import { Card } from "./parts.js";
import { moment, plain, span } from "./words.js";

const WIDTH = 600,
  LEFT = 4,
  RIGHT = 596,
  HOUR = 3_600_000;

export function Windows({ limits }) {
  const now = Date.now();
  const held = limits?.limits ?? [],
    ahead = (limits?.forecasts ?? []).filter((one) => one.at === null || one.at > now);
  if (!held.length && !ahead.length) {
    return html`<${Card} title="Limits"
      ><p class="muted small">Nothing is limited, and no forecast can be made yet.</p><//
    >`;
  }
  const times = [...held.map((one) => one.resets_at), ...ahead.map((one) => one.at)].filter(Boolean);
  const until = Math.max(now + HOUR, ...times) + 0.05 * Math.max(HOUR, ...times.map((at) => at - now));
  const x = (at) => LEFT + ((RIGHT - LEFT) * (at - now)) / (until - now);
  return html`<${Card} title="Limits" aside=${`the next ${span(until - now)}`}>
    <svg class="windows" viewBox="0 0 ${WIDTH} 40" role="img" aria-label="What of the sentences below comes when">
      <rect class="track" x=${LEFT} y="12" width=${RIGHT - LEFT} height="8" rx="4" />
      ${held
        .filter((one) => one.resets_at)
        .map(
          (one) =>
            html`<g key=${one.id} class="tone-held"
              ><title>${plain(one.kind)} until ${moment(one.resets_at)}</title>
              <rect class="span" x=${LEFT} y="12" width=${x(one.resets_at) - LEFT} height="8" rx="4"
            /></g>`,
        )}
      ${ahead
        .filter((one) => one.at)
        .map(
          (one, n) =>
            html`<g key=${n} class="tone-warn"
              ><title>${one.sentence}</title> <circle class="span" cx=${x(one.at)} cy="16" r="6"
            /></g>`,
        )}
      <text x=${LEFT} y="36">now</text>
      <text x=${RIGHT} y="36" text-anchor="end">${moment(until)}</text>
    </svg>
    <ul class="stack small">
      ${held.map(
        (one) =>
          html`<li key=${one.id}>
            <span class="state tone-held">${one.target ?? "the account"}, ${plain(one.kind)}</span>
            ${one.resets_at ? ` until ${moment(one.resets_at)}` : ", until nobody knows"}
          </li>`,
      )}
      ${(limits?.forecasts ?? []).map((one, n) => html`<li key=${n}>${one.session && html`<a href=${`#/team/${one.session}`}>${one.session}</a>: `}${one.sentence}</li>`)}
    </ul><//
  >`;
}
