"""A small HTTP/1.1 server: llhttp parses, and what is left to do for a request is done once.

    messages.py     a request as a handler sees it, and an answer of known length
    connection.py   one client's socket: limits, keep-alive, pipelining, streams
    door.py         the sockets listened on: accepting while there is room
    listener.py     everybody who came through them
    tls.py          a certificate that follows its files

It knows nothing of OpenAI; why it exists is told in decision 0025.
"""

from actors.ingress.server.connection import Limits, Stream
from actors.ingress.server.listener import Listener
from actors.ingress.server.messages import Handler, Request, Response, Trouble
from actors.ingress.server.tls import Certificate, CertificateError

__all__ = [
    "Certificate",
    "CertificateError",
    "Handler",
    "Limits",
    "Listener",
    "Request",
    "Response",
    "Stream",
    "Trouble",
]
