"""The command line: each command parses its options, calls one function and prints."""

from maml_cli.interrupts import exit_while_importing

exit_while_importing()
