"""The command line: `supervise`."""

from supervisor.cli.main import main

__all__ = ("main",)
