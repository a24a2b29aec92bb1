"""`python -m dstack.cli`, for where the console script is not on PATH."""

from dstack.cli import main

main()
