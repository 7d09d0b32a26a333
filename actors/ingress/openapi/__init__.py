"""The description of the HTTP API that `/openapi.json` serves."""

from actors.ingress.openapi.document import described, document

__all__ = ["described", "document"]
