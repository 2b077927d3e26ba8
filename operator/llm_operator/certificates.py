"""The webhook's certificates: what to make, when to renew it, and whom the API server should trust meanwhile.

Pure: the caller gives the time and what is stored, and gets what should be stored. A certificate authority (a year)
signs a serving certificate (a week); both are renewed at two thirds of their life. A new authority signs only once
the API server trusts it, and an old one stays trusted for as long as anything that it signed may be valid. So neither
step needs to be timed against the other processes, and each can be repeated from wherever it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_CERTIFICATE: Final = "ca.crt"
"""The key in the Secret of all that the API server should trust, the signing authority's certificate first."""
AUTHORITY_KEY: Final = "ca.key"
"""The webhook must not get this one: mount the other keys by `items`."""
SERVING_CERTIFICATE: Final = "tls.crt"
SERVING_KEY: Final = "tls.key"

AUTHORITY_LIFE: Final = timedelta(days=365)
SERVING_LIFE: Final = timedelta(days=7)
_RENEWED_AT: Final = 2 / 3
_BACKDATED: Final = timedelta(hours=1)
"""The clocks of the nodes differ: what was valid from now on would be refused where it is still a minute earlier."""
_MOST_AUTHORITIES: Final = 4
"""Each loss of the Secret adds one for a week; a bundle that only grows would end in the API server's size limit."""
_UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What a certificate that somebody else made may end in."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs the serving certificate."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Serving:
    """What the webhook shows to the API server."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the Secret holds."""

    authority: Authority
    serving: Serving
    retired: tuple[x509.Certificate, ...] = ()
    """Authorities that sign no more, but may have signed what is still shown."""

    @property
    def trusted(self) -> bytes:
        """The `caBundle`, in PEM."""
        return b"".join(map(_pem, (self.authority.certificate, *self.retired)))

    def to_secret(self) -> dict[str, bytes]:
        """The Secret's data."""
        return {
            AUTHORITY_CERTIFICATE: self.trusted,
            AUTHORITY_KEY: _key_pem(self.authority.key),
            SERVING_CERTIFICATE: _pem(self.serving.certificate),
            SERVING_KEY: _key_pem(self.serving.key),
        }

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Self | None:
        """What is stored. None for what cannot be used, be it empty, cut, mixed up or of another kind."""
        try:
            signing, *retired = x509.load_pem_x509_certificates(data[AUTHORITY_CERTIFICATE])
            authority = Authority(signing, _read_key(data[AUTHORITY_KEY]))
            serving = Serving(x509.load_pem_x509_certificate(data[SERVING_CERTIFICATE]), _read_key(data[SERVING_KEY]))
        except (KeyError, TypeError, *_UNREADABLE):
            return None
        whole = _belong(authority) and _belong(serving) and _is_authority(signing)
        return cls(authority, serving, tuple(retired)) if whole else None


def service_names(service: str, *, namespace: str) -> tuple[str, ...]:
    """The names by which a Service is called; the API server uses the first."""
    return (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local")


def renew(stored: Certificates | None, *, trusted: bytes | None, names: Sequence[str], now: datetime) -> Certificates:
    """What should be stored now: `stored` itself where nothing is due.

    `trusted` is what the API server trusts at this moment (the `caBundle`, in PEM).
    """
    if stored is None or _expired(stored.authority.certificate, now):
        return _anew(trusted, names, now)
    if _due(stored.authority.certificate, now):
        authority = make_authority(now=now)
        # The old serving certificate goes on until the API server trusts the new authority.
        retired = _still_needed((stored.authority.certificate, *stored.retired), authority, now)
        return Certificates(authority, stored.serving, retired)
    retired = _still_needed(stored.retired, stored.authority, now)
    renewed = Certificates(stored.authority, _renewed_serving(stored, trusted, names, now), retired)
    return stored if renewed == stored else renewed


def make_authority(*, now: datetime) -> Authority:
    """A certificate authority for this webhook alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Each has a name of its own: verifiers look for an issuer by name, and two are trusted for a while.
    name = _name(f"llm-sidecar webhook CA {x509.random_serial_number():x}"[:40])
    certificate = (
        _builder(name, name, key.public_key(), now=now, until=now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(authority: Authority, *, names: Sequence[str], now: datetime) -> Serving:
    """A serving certificate for these names; it never outlives its authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    until = min(now + SERVING_LIFE, issuer.not_valid_after_utc)
    # The subject is for people; verifiers read the alternative names. A common name has at most 64 characters.
    certificate = (
        _builder(_name(names[0][:64]), issuer.subject, key.public_key(), now=now, until=until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Serving(certificate, key)


def authorities_in(bundle: bytes | None) -> tuple[x509.Certificate, ...]:
    """The certificates of a `caBundle`; none where it is empty or unreadable."""
    if not bundle:
        return ()
    try:
        return tuple(x509.load_pem_x509_certificates(bundle))
    except _UNREADABLE:
        return ()


def _anew(trusted: bytes | None, names: Sequence[str], now: datetime) -> Certificates:
    """Nothing usable is stored, but the webhook may still show what was: its authority stays trusted."""
    authority = make_authority(now=now)
    others = [certificate for certificate in authorities_in(trusted) if _is_authority(certificate)]
    return Certificates(authority, issue(authority, names=names, now=now), _still_needed(others, authority, now))


def _renewed_serving(stored: Certificates, trusted: bytes | None, names: Sequence[str], now: datetime) -> Serving:
    authority, serving = stored.authority, stored.serving
    signed = _signed_by(serving.certificate, authority.certificate)
    if signed and not _due(serving.certificate, now) and _names_of(serving.certificate) == tuple(names):
        return serving
    useless = _expired(serving.certificate, now)
    if authority.certificate in authorities_in(trusted) or useless:
        return issue(authority, names=names, now=now)
    return serving


def _still_needed(
    candidates: Iterable[x509.Certificate], authority: Authority, now: datetime
) -> tuple[x509.Certificate, ...]:
    """Those that may have signed something still valid: they stopped when their successor was made."""
    if now >= authority.certificate.not_valid_before_utc + _BACKDATED + SERVING_LIFE:
        return ()
    kept = [one for one in dict.fromkeys(candidates) if one != authority.certificate and not _expired(one, now)]
    return tuple(kept[: _MOST_AUTHORITIES - 1])


def _due(certificate: x509.Certificate, now: datetime) -> bool:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= start + (end - start) * _RENEWED_AT or now < start


def _expired(certificate: x509.Certificate, now: datetime) -> bool:
    return now >= certificate.not_valid_after_utc


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, *_UNREADABLE):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except _UNREADABLE:
        return False


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except _UNREADABLE:
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def _belong(pair: Authority | Serving) -> bool:
    return pair.certificate.public_key() == pair.key.public_key()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("keys are made by this module, all on an elliptic curve")
    return key
