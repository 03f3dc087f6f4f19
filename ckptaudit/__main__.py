"""``python -m ckptaudit``."""

from .cli import command

command()
