"""Certificates for the servers of a topology on several nodes: one authority, one pair a node.

Both ends show one: NATS and etcd let nobody in whom the authority has not signed, and nodes talk
to no other server. Whoever has `ca.key` can make more; no node needs it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from supervisor.private import write_private

AUTHORITY = "ca"
BACKDATED = dt.timedelta(hours=1)
"""Hosts' clocks may differ."""


def make(
    directory: Path, nodes: Mapping[str, str | None], *, days: int, renew: bool = False
) -> list[Path]:
    """Write `ca.pem`, `ca.key`, and `NODE.pem` and `NODE.key` for each of the nodes, which are
    given with their addresses. What is there stays; with `renew` the nodes' are made again by
    the same authority. Returns the certificates that were written. Raises OSError, ValueError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = []
    ca_file, ca_key_file = directory / f"{AUTHORITY}.pem", directory / f"{AUTHORITY}.key"
    if ca_file.exists():
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
        loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{ca_key_file} is no key of an elliptic curve")
        ca_key = loaded
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _authority(ca_key, days)
        _write(ca_file, ca_key_file, ca, ca_key)
        written.append(ca_file)
    for node, address in nodes.items():
        file, key_file = directory / f"{node}.pem", directory / f"{node}.key"
        if file.exists() and not renew:
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        _write(file, key_file, _leaf(node, address, key, ca, ca_key, days), key)
        written.append(file)
    return written


def _authority(key: ec.EllipticCurvePrivateKey, days: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "understudy")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _builder(name, name, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    node: str,
    address: str | None,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    # Not the bare name: etcd takes it for a user's, who then needs no password.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"node:{node}")])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [_name(known) for known in dict.fromkeys((node, address or node))]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder(subject, ca.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(
    file: Path, key_file: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    # The key first: a certificate says that both are there.
    write_private(key_file, pem)
    write_private(file, certificate.public_bytes(encoding))
