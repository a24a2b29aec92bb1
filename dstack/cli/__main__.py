"""`python -m dstack.cli`, for when the console script is not on PATH."""

from dstack.cli import main

main()
