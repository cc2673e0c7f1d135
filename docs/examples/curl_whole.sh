curl -sS "${URL:-http://127.0.0.1:8000}/chat" \
  -H 'Content-Type: application/json' \
  -d '{"query": "What is the capital of France?", "max_tokens": 64, "temperature": 0}'
