"""Calls the service, at the address in the arguments, with openapi-python-client's client."""

import sys

from ml_api_client import Client
from ml_api_client.api.chat import answer_chat_chat_post
from ml_api_client.api.jobs import embed_batch_embed_batch_post, get_job_jobs_job_id_get
from ml_api_client.api.openai import complete_chat_v1_chat_completions_post
from ml_api_client.api.predict import predict_predict_post
from ml_api_client.api.search import search_search_post
from ml_api_client.models import (
    ChatCompletionRequest,
    ChatRequest,
    EmbedBatchRequest,
    PredictRequest,
    SearchRequest,
)

client = Client(base_url=sys.argv[1])
label = predict_predict_post.sync(client=client, body=PredictRequest(text="A good film."))
assert label.model == "sentiment"
answer = answer_chat_chat_post.sync(client=client, body=ChatRequest(query="one two"))
assert answer.answer == "one two"
messages = [{"role": "user", "content": "one two"}]
body = ChatCompletionRequest.from_dict({"model": "smollm2", "messages": messages})
completion = complete_chat_v1_chat_completions_post.sync(client=client, body=body)
assert completion.choices[0].message.content == "one two"
documents = [{"id": "a", "text": "A text."}]
body = EmbedBatchRequest.from_dict({"documents": documents})
job = embed_batch_embed_batch_post.sync(client=client, body=body)
assert get_job_jobs_job_id_get.sync(job.job_id, client=client).id == job.job_id
found = search_search_post.sync(client=client, body=SearchRequest(query="A text."))
assert isinstance(found.results, list)
