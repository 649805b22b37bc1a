"""The command ``dualview``; ``dualview --help`` says what it does."""

from dualview_plugin.cli.main import main

__all__ = ["main"]
