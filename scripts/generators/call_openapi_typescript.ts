// Calls the service, at the address in the arguments, with the types of openapi-typescript.

import createClient from "openapi-fetch";

import type { paths } from "./client.js";

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

// Answers as JSON: chat has streams too.
const client = createClient<paths, "application/json">({ baseUrl: process.argv[2] ?? "" });
const label = await client.POST("/predict", { body: { text: "A good film." } });
check(label.data?.model === "sentiment", "predict");
const answer = await client.POST("/chat", { body: { query: "one two" } });
check(answer.data?.answer === "one two", "chat");
const completion = await client.POST("/v1/chat/completions", {
  body: { model: "smollm2", messages: [{ role: "user", content: "one two" }] },
});
check(completion.data?.choices[0]?.message.content === "one two", "completion");
const job = await client.POST("/embed-batch", {
  body: { documents: [{ id: "a", text: "A text." }] },
});
const id = job.data?.job_id ?? "";
const same = await client.GET("/jobs/{job_id}", { params: { path: { job_id: id } } });
check(id !== "" && same.data?.id === id, "jobs");
const found = await client.POST("/search", { body: { query: "A text." } });
check(Array.isArray(found.data?.results), "search");
