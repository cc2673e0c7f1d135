// Texts and files as documents of the service: their ids, their parts, and how many go at once.

const MAX_CHARS = 100_000; // of one document, as the service has it
const MAX_ID_CHARS = 128; // likewise
const MAX_BATCH = 200;
const MAX_BATCH_CHARS = 1_000_000; // well under the service's default bound of a body
const TITLE_CHARS = 60;

// A document for a text that was pasted: each is a new one, named by how it begins.
export const pasted = (text) =>
  partsOf({ title: [...text.trim().split("\n")[0]].slice(0, TITLE_CHARS).join(""), text });

// Documents for files, { name, text }; one that comes again takes its old version's place.
export function fromFiles(files) {
  const ids = new Set();
  return files.flatMap(({ name, text }) => partsOf({ title: name, text })).map((document) => {
    const id = idOf(document.metadata.title);
    if (id === null || ids.has(id)) return document; // the service makes one
    ids.add(id);
    return { id, ...document };
  });
}

// An id has few characters; others are written as their bytes, so that no two names become one.
function idOf(name) {
  const asByte = (char) => `%${char.charCodeAt(0).toString(16)}`;
  const escaped = encodeURIComponent(name.toWellFormed()).replace(/[!~*'()]/g, asByte);
  const id = escaped.replaceAll("%", ":");
  return id.length > MAX_ID_CHARS || /^\.{1,2}$/.test(id) ? null : id;
}

// A text that is too long for one document becomes several, cut between words where there are any.
function partsOf({ title, text }) {
  const parts = [];
  let rest = text.replaceAll("\0", "").toWellFormed();
  while (rest.length > MAX_CHARS) {
    const blank = rest.slice(0, MAX_CHARS).search(/\s\S*$/);
    // Without a blank in sight it is cut anywhere, but not through a character.
    const end = blank > 0 ? blank : MAX_CHARS - /[\ud800-\udbff]/.test(rest[MAX_CHARS - 1]);
    parts.push(rest.slice(0, end));
    rest = rest.slice(end);
  }
  parts.push(rest);
  return parts.map((part, place) => ({
    text: part,
    metadata: { title: parts.length > 1 ? `${title} (${place + 1} of ${parts.length})` : title },
  }));
}

// Cut many documents into as many as one request takes.
export function* batches(documents) {
  let batch = [];
  let chars = 0;
  for (const document of documents) {
    const isFull = batch.length === MAX_BATCH || chars + document.text.length > MAX_BATCH_CHARS;
    if (batch.length && isFull) {
      yield batch;
      batch = [];
      chars = 0;
    }
    batch.push(document);
    chars += document.text.length;
  }
  yield batch;
}
