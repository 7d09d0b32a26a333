"""The chat page: one file, no build step, nothing from elsewhere."""

from importlib import resources

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def chat_page() -> bytes:
    """The page, as it is served."""
    return resources.files(__name__).joinpath("chat.html").read_bytes()
