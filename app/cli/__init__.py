"""The `app` command: each module holds the commands of one subject, `main` puts them together."""
