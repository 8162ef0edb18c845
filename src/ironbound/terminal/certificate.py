"""The operator channel's certificate: made with the deployment, pinned by whoever connects.

Decides that a client trusts this one certificate and no authority, wherever the controller listens. It keeps what is
sent between operator and controller from others' eyes; it gives no power: that is the signatures' (decision 0026).
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ironbound.core.canonical import Digest, sha256_hex

#: Days that a certificate is valid.
VALID_DAYS: Final = 3650
LOOPBACK: Final = ("127.0.0.1", "::1")


def make_certificate(deployment: str) -> tuple[bytes, bytes]:
    """A new certificate for a deployment's operator channel, and its private key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{deployment} operator channel"[:64])])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in LOOPBACK]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def fingerprint_of(certificate: bytes) -> Digest:
    """The SHA-256 of the certificate's DER, as any tool shows it. ValueError if it is none."""
    return sha256_hex(x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER))


def pinned_context(certificate: bytes) -> ssl.SSLContext:
    """TLS 1.3 with whoever shows this certificate, and nobody else. ValueError if it is none.

    The name is not compared: the certificate itself is what is trusted, wherever the controller listens.
    """
    loaded = x509.load_pem_x509_certificate(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=loaded.public_bytes(serialization.Encoding.PEM).decode("ascii"))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context
