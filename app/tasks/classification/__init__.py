"""Text classification: `/predict`, `/predict/{model_name}` and `/predict-batch`."""
