curl -sSN "${URL:-http://127.0.0.1:8000}/chat/stream" \
  -H 'Content-Type: application/json' \
  -H 'X-Request-Timeout-Ms: 1500' \
  -d '{"query": "Tell me a very long story.", "temperature": 0}'
