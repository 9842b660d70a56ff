// Values as people read them.

const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hour12: false });
const thousands = new Intl.NumberFormat();

export const dateTime = (ms) => day.format(ms);
export const fullTime = (ms) => whole.format(ms);
export const clock = (ms) => clockFormat.format(ms);
export const number = (value) => thousands.format(value);

export function duration(ms) {
  if (ms == null) return "";
  if (ms < 0) return "0 s";
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function bytes(count) {
  if (count == null) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export const shortDigest = (digest) => digest.replace("sha256:", "").slice(0, 12);
export const shortCommit = (commit) => commit.slice(0, 7);

/** Whether a moment lies in the past or the future, and how far. */
export function fromNow(ms, now) {
  const away = ms - now;
  return away >= 0 ? `in ${duration(away)}` : `${duration(-away)} ago`;
}

/** The terminal's colours and cursor movements, which are no text. */
export const plain = (text) => text.replace(/\u001b\[[0-9;?]*[A-Za-z]/g, "").replace(/[\u0000-\u0008\u000b-\u001f]/g, "");
