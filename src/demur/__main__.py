"""`python -m demur` is `demur`."""

from demur.cli.commands import main

main()
