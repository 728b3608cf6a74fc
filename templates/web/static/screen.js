// One agent: its screen as it is now, its dialog if one is open, and a message to it.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Act, Command, State } from "./parts.js";
import { change, get, isReadOnly } from "./server.js";
import { plain, span } from "./words.js";

const LOOK_MS = 1000;

/** Look at a screen again and again, while the page can be seen. */
function useScreen(agent) {
  const [screen, setScreen] = useState({});
  useEffect(() => {
    let timer = null,
      isMine = true;
    const look = async () => {
      if (!document.hidden) {
        const found = await get(`/agents/${agent}/screen`);
        if (!isMine) return;
        setScreen((old) =>
          old.data && old.data.html === found.data?.html && !found.data?.dialog === !old.data.dialog ? old : found,
        );
      }
      if (isMine) timer = setTimeout(look, LOOK_MS);
    };
    setScreen({});
    look();
    return () => {
      isMine = false;
      clearTimeout(timer);
    };
  }, [agent]);
  return screen;
}

export function Screen({ agent }) {
  const { data, error } = useScreen(agent.id);
  return html`<section class="card" aria-label=${`Screen of ${agent.role}`}>
    <header>
      <h2>${agent.target}</h2>
      <${State} of=${agent.state} />
    </header>
    ${error && html`<p class="said tone-warn">${error}</p>`}
    ${data && html`<${Terminal} html=${data.html} label=${`What ${agent.role} shows now`} />`}
    ${data?.dialog && !isReadOnly && html`<${Dialog} agent=${agent} dialog=${data.dialog} />`}
    ${!isReadOnly && agent.state !== "gone" && html`<${Send} key=${agent.id} agent=${agent} />`}
    <div class="small"><${Command} text=${`tmux attach -t ${agent.target}`} /></div>
  </section>`;
}

/** A screen. The server has escaped its text: all that is markup in it are the spans of the colours. */
export function Terminal({ html: inside, label }) {
  const place = useRef(null),
    isAtEnd = useRef(true);
  const look = ({ target: { scrollTop, clientHeight, scrollHeight } }) => {
    isAtEnd.current = scrollTop + clientHeight >= scrollHeight - 8;
  };
  // A terminal's news is at its end; who reads further up is left there.
  useLayoutEffect(() => {
    if (isAtEnd.current) place.current.scrollTop = place.current.scrollHeight;
  }, [inside]);
  return html`<pre
    ref=${place}
    class="screen"
    tabindex="0"
    role="group"
    aria-label=${label}
    onScroll=${look}
    dangerouslySetInnerHTML=${{ __html: inside }}
  ></pre>`;
}

function Dialog({ agent, dialog }) {
  return html`<div class="said tone-warn stack" role="group" aria-label="A dialog is open">
    <p>${dialog.text}</p>
    <div class="row">
      ${dialog.choices.map(
        (one) =>
          html`<${Act} key=${one.key} path=${`/agents/${agent.id}/answer`} body=${{ dialog: dialog.name, key: one.key }}
            >${one.key}. ${one.text}<//
          >`,
      )}
    </div>
  </div>`;
}

function Send({ agent }) {
  const [text, setText] = useState("");
  const [priority, setPriority] = useState("normal");
  const [sent, setSent] = useState(null);
  const [error, setError] = useState(null);
  const field = useRef(null);
  const send = async (event) => {
    event.preventDefault();
    setError(null);
    const found = await change(`/agents/${agent.id}/messages`, { text, priority });
    if (found.error) return setError(found.error);
    setSent(found.data);
    setText("");
    field.current?.focus();
  };
  return html`<form class="stack" onSubmit=${send}>
    <label
      >A message to ${agent.role}<textarea
        ref=${field}
        value=${text}
        required
        onInput=${(event) => setText(event.target.value)}
      ></textarea>
    </label>
    <div class="row">
      <label class="row"
        >Priority
        <select value=${priority} onChange=${(event) => setPriority(event.target.value)}>
          ${["low", "normal", "high", "emergency"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select></label
      >
      <button class="main" disabled=${!text.trim()}>Send</button>
      ${error && html`<span role="alert" class="tone-bad small">${error}</span>`}
      ${sent && html`<${Delivery} message=${sent} />`}
    </div>
  </form>`;
}

const OVER = ["acknowledged", "failed", "cancelled"];

/** How far a message has come, until it has arrived. */
function Delivery({ message }) {
  const [now, setNow] = useState(message);
  useEffect(() => {
    setNow(message);
    let timer = null,
      isMine = true;
    const look = async () => {
      const { data } = await get(`/messages/${message.id}`);
      if (!isMine) return;
      if (data) setNow(data);
      if (!data || !OVER.includes(data.status)) timer = setTimeout(look, 300);
    };
    look();
    return () => {
      isMine = false;
      clearTimeout(timer);
    };
  }, [message.id]);
  const took = now.acknowledged_at ? ` in ${span(now.acknowledged_at - now.queued_at)}` : "";
  return html`<span role="status"
    ><${State} of=${now.status}
      >message ${now.id} ${plain(now.status)}${took}${now.reason ? `: ${now.reason}` : ""}<//
    ></span
  >`;
}
