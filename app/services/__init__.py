"""The way of every task: lease a model, run it, read its answer."""
