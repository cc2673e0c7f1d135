// Numbers as people read them.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const integer = (value) => whole.format(value);
export const number = (value) => short.format(value);
export const percent = (share) => `${(share * 100).toFixed(1)} %`;
// A classifier's score: a probability, or the number that a regression predicts.
export const score = (value, isRegression) => (isRegression ? number(value) : percent(value));
export const plural = (count, one, many = `${one}s`) =>
  `${integer(count)} ${count === 1 ? one : many}`;

export function duration(seconds) {
  if (seconds < 1) return `${number(seconds * 1000)} ms`;
  return `${number(seconds)} s`;
}

// Characters as the service counts them: an emoji is one, though JavaScript says two.
export const length = (text) => {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
};
