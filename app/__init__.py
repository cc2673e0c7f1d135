"""ml-api: a service for machine-learning models on FastAPI."""
