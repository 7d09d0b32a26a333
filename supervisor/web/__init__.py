"""The page that draws the live tree. Imported only when it was asked for (`--web`)."""

from supervisor.web.server import Page, PageUnavailableError

__all__ = ("Page", "PageUnavailableError")
