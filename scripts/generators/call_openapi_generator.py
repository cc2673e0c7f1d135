"""Calls the service, at the address in the arguments, with openapi-generator's Python client."""

import sys

import openapi_client as api

with api.ApiClient(api.Configuration(host=sys.argv[1])) as client:
    label = api.PredictApi(client).predict_predict_post(api.PredictRequest(text="A good film."))
    assert label.model == "sentiment"
    asked = api.ChatRequest(query="one two")
    assert api.ChatApi(client).answer_chat_chat_post(asked).answer == "one two"
    messages = [{"role": "user", "content": "one two"}]
    completion = api.OpenaiApi(client).complete_chat_v1_chat_completions_post(
        api.ChatCompletionRequest.from_dict({"model": "smollm2", "messages": messages})
    )
    assert completion.choices[0].message.content == "one two"
    documents = [{"id": "a", "text": "A text."}]
    job = api.JobsApi(client).embed_batch_embed_batch_post(
        api.EmbedBatchRequest.from_dict({"documents": documents})
    )
    assert api.JobsApi(client).get_job_jobs_job_id_get(job.job_id).id == job.job_id
    found = api.SearchApi(client).search_search_post(api.SearchRequest(query="A text."))
    assert isinstance(found.results, list)
