"""``python -m netspot``."""

from netspot.cli import program

program()
