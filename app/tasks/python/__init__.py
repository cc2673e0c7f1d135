"""Python classes of the operator's: `/predict/{name}` and `/predict-batch/{name}`."""
