curl -sSN "${URL:-http://127.0.0.1:8000}/chat/stream" \
  -H 'Content-Type: application/json' \
  -d '{"messages": [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "What is the capital of France?"}
      ], "max_tokens": 64, "temperature": 0}'
