"""What models do: a folder for each task, with its routes and schemas."""
