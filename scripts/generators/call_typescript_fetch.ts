// Calls the service, at the address in the arguments, with openapi-generator's typescript-fetch.

import { ChatApi, Configuration, JobsApi, OpenaiApi, PredictApi, SearchApi } from "./client/index.js";

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

const configuration = new Configuration({ basePath: process.argv[2] });
const label = await new PredictApi(configuration).predictPredictPost({
  predictRequest: { text: "A good film." },
});
check(label.model === "sentiment", "predict");
const answer = await new ChatApi(configuration).answerChatChatPost({
  chatRequest: { query: "one two" },
});
check(answer.answer === "one two", "chat");
const completion = await new OpenaiApi(configuration).completeChatV1ChatCompletionsPost({
  chatCompletionRequest: { model: "smollm2", messages: [{ role: "user", content: "one two" }] },
});
check(completion.choices[0]?.message.content === "one two", "completion");
const jobs = new JobsApi(configuration);
const job = await jobs.embedBatchEmbedBatchPost({
  embedBatchRequest: { documents: [{ id: "a", text: "A text." }] },
});
check((await jobs.getJobJobsJobIdGet({ jobId: job.jobId })).id === job.jobId, "jobs");
const found = await new SearchApi(configuration).searchSearchPost({
  searchRequest: { query: "A text." },
});
check(Array.isArray(found.results), "search");
