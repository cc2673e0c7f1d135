// Reads Prometheus' text format, and what has happened between two readings.

const SAMPLE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// Return the samples by name: Map of name → [{ labels, value }].
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!found) continue;
    const [, name, inside = "", value] = found;
    const labels = Object.fromEntries([...inside.matchAll(LABEL)].map(([, k, v]) => [k, v]));
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: Number(value) });
  }
  return samples;
}

// Sum a metric over its labels; `isMeant` chooses among them.
export function sum(samples, name, isMeant = () => true) {
  return (samples.get(name) ?? [])
    .filter(({ labels }) => isMeant(labels))
    .reduce((total, { value }) => total + value, 0);
}

// How much a counter has grown; null when it was set back by a restart.
export function growth(before, now, name, isMeant) {
  const grown = sum(now, name, isMeant) - sum(before, name, isMeant);
  return grown < 0 ? null : grown;
}

// The value of a histogram below which a share of what came in between lies; null for nothing.
// Within a bucket the values are taken to be spread evenly, as Prometheus does it.
export function quantile(share, before, now, name) {
  const bounds = [...new Set((now.get(`${name}_bucket`) ?? []).map(({ labels }) => labels.le))];
  const counts = bounds.map((le) => [
    le === "+Inf" ? Infinity : Number(le),
    growth(before, now, `${name}_bucket`, (labels) => labels.le === le) ?? 0,
  ]).sort(([a], [b]) => a - b);
  const total = counts.at(-1)?.[1] ?? 0;
  if (!total) return null;
  const rank = share * total;
  const place = counts.findIndex(([, count]) => count >= rank);
  const [low, below] = place ? counts[place - 1] : [0, 0];
  const [high, upTo] = counts[place];
  if (high === Infinity) return low;
  return low + (high - low) * ((rank - below) / (upTo - below || 1));
}
