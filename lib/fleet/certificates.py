"""The keys and certificates of a fleet: its own authority, the server, and a host each."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lib.errors import OrchestratorError
from lib.records import dataclass

AUTHORITY_DAYS = 3650
#: Of the server's and the hosts' certificates.
DAYS = 1825
#: Clocks of a fleet may differ.
_SLACK = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


def authority(name: str, now: datetime.datetime) -> Pair:
    """A new authority, which signs certificates and nothing else."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), _name(f"{name} fleet")
    limits = x509.BasicConstraints(ca=True, path_length=0)
    made = _builder(subject, subject, key, now, AUTHORITY_DAYS).add_extension(limits, critical=True)
    made = made.add_extension(_usage(signs_certificates=True), critical=True)
    return _pair(made.sign(key, hashes.SHA256()), key)


def for_server(authority: Pair, addresses: Sequence[str], now: datetime.datetime, *, calls: bool = False) -> Pair:
    """A certificate by which hosts know the server at these names and IP addresses.

    One that `calls` is a client too, of the other servers of its cluster.
    """
    names = x509.SubjectAlternativeName([_general_name(address) for address in addresses])
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if calls else [])]
    return _issued(authority, "server", purposes, now, names)


def for_host(authority: Pair, user: str, now: datetime.datetime, *, days: int = DAYS) -> Pair:
    """A certificate by which the server knows a host; it serves for nothing else."""
    return _issued(authority, user, [ExtendedKeyUsageOID.CLIENT_AUTH], now, days=days)


def addresses_of(certificate: str) -> tuple[str, ...]:
    """The names and IP addresses that a server's certificate holds."""
    names = x509.load_pem_x509_certificate(certificate.encode()).extensions
    return tuple(str(one.value) for one in names.get_extension_for_class(x509.SubjectAlternativeName).value)


def ends_at(certificate: str) -> datetime.datetime:
    """Until when a certificate is good."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def user_of(pair: Pair, authority: str, now: datetime.datetime) -> str:
    """The user that a host's certificate names. Raises `OrchestratorError` with what is wrong with it or its key."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        issuer = x509.load_pem_x509_certificate(authority.encode())
        key = load_pem_private_key(pair.key.encode(), password=None)
        users = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError):
        raise OrchestratorError("its certificates or its key cannot be read") from None
    except InvalidSignature:
        raise OrchestratorError("its certificate is of another fleet") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise OrchestratorError("its key is not the one of its certificate")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise OrchestratorError(f"its certificate was good until {certificate.not_valid_after_utc:%Y-%m-%d}")
    return str(users[0].value) if users else ""


def _issued(
    authority: Pair,
    user: str,
    purposes: Sequence[x509.ObjectIdentifier],
    now: datetime.datetime,
    names: x509.SubjectAlternativeName | None = None,
    *,
    days: int = DAYS,
) -> Pair:
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuer_key = load_pem_private_key(authority.key.encode(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    made = _builder(_name(user), issuer.subject, key, now, days)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(_usage(signs_certificates=False), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names:
        made = made.add_extension(names, critical=False)
    made = made.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    return _pair(made.sign(issuer_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(user: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(Encoding.PEM).decode(),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )
