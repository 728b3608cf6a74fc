// Values as a person reads them.

const MINUTE = 60_000,
  HOUR = 60 * MINUTE,
  DAY = 24 * HOUR;

/** A length of time, in its two largest parts: "3 min", "2 h 5 min", "4 d 1 h". */
export function span(ms) {
  if (ms < MINUTE) return `${Math.max(0, Math.round(ms / 1000))} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
  if (ms < DAY) return joined(Math.floor(ms / HOUR), "h", Math.floor((ms % HOUR) / MINUTE), "min");
  return joined(Math.floor(ms / DAY), "d", Math.floor((ms % DAY) / HOUR), "h");
}

function joined(large, unit, small, less) {
  return small ? `${large} ${unit} ${small} ${less}` : `${large} ${unit}`;
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const dated = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});

/** A time of today by its clock, an older one with its day. */
export function moment(ms) {
  return (Math.abs(Date.now() - ms) < 18 * HOUR ? clock : dated).format(ms);
}

export function money(usd) {
  if (usd === null || usd === undefined) return "no known price";
  return usd > 0 && usd < 0.01 ? "under $0.01" : `$${usd.toFixed(2)}`;
}

export function many(count, one, several = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : several}`;
}

const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
export const short = (count) => compact.format(count);

export function bytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${count >= 100 || unit === 0 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

/** An identifier of ours as words: "needs_attention" is "needs attention". */
export const plain = (name) => String(name).replaceAll("_", " ");

export const folder = (path) => String(path).replace(/\/+$/, "").split("/").pop() || String(path);
