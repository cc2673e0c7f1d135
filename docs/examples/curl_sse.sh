curl -sSN "${URL:-http://127.0.0.1:8000}/chat/stream" \
  -H 'Content-Type: application/json' \
  -H 'Accept: text/event-stream' \
  -d '{"query": "What is the capital of France?", "max_tokens": 64, "temperature": 0}'
