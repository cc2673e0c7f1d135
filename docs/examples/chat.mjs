// Yields an answer token by token; throws the problem that ended it, if one did.
// Leaving the loop stops the generation.
export async function* tokens(url, asked) {
  const response = await fetch(`${url}/chat/stream`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(asked),
  });
  if (!response.ok) throw failed(await response.json());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the connection was cut");
      const lines = (rest + value).split("\n");
      rest = lines.pop(); // the beginning of a line whose end has not come yet
      for (const line of lines) {
        const said = JSON.parse(line);
        if (said.error) throw failed(said.error);
        if (said.token) yield said.token; // it is empty in heartbeats and in the last line
        if (said.done) return said; // with finish_reason and usage
      }
    }
  } finally {
    await reader.cancel();
  }
}

function failed(problem) {
  return new Error(`${problem.code}: ${problem.detail}`);
}
