"""`python -m app` is the `app` command."""

from app.cli.main import main

main()
