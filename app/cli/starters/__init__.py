"""What `app models new` writes: a model to start from, which runs as it is."""
