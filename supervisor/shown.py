"""Whether the certificate files of a node can be used, before a server or a node is started with
them. `certificates.py` makes them; this is apart from it, as every start needs it and few make any.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class CertificatesError(Exception):
    """The certificates of a node are missing, or do not fit."""


def check_files(ca: str, cert: str, key: str, node: str, topology: Path) -> None:
    """Raises CertificatesError, with what to do, unless the three can be used."""
    for file in (ca, cert, key):
        if not Path(file).is_file():
            raise CertificatesError(
                f"{file} is missing: make the certificates once, with `supervise certificates "
                f"{topology}`, and copy ca.pem, {node}.pem and {node}.key to this node; or write "
                "`certificates: off` where the network can be trusted"
            )
    try:
        ssl.create_default_context(cafile=ca).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise CertificatesError(f"{cert} and {key} cannot be used: {error}") from error
