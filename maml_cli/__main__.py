"""`python -m maml_cli` is `maml`."""

from maml_cli.cli.app import main

main()
