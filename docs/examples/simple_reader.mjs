// The shortest reader that works with this service: it takes each chunk for whole lines.
export async function ask(url, body, print) {
  const response = await fetch(`${url}/chat/stream`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  while (true) {
    const { done, value } = await reader.read();
    if (done) break;
    for (const line of decoder.decode(value).split("\n")) {
      if (line) print(JSON.parse(line).token);
    }
  }
}
