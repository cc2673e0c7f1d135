// Yields an answer token by token; throws the problem that ended it, if one did.
// Leaving the loop stops the generation.
export async function* tokens(url, body) {
  const response = await fetch(`${url}/chat/stream`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw failed(await response.json());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the connection was cut");
      const lines = (rest + value).split("\n");
      rest = lines.pop(); // the beginning of an incomplete line
      for (const line of lines) {
        const message = JSON.parse(line);
        if (message.error) throw failed(message.error);
        if (message.token) yield message.token; // it is empty in heartbeats and in the last line
        if (message.done) return message; // with finish_reason and usage
      }
    }
  } finally {
    await reader.cancel();
  }
}

function failed(problem) {
  return new Error(`${problem.code}: ${problem.detail}`);
}
