"""The cluster's own authority, and the certificates by which its components know each other.

Made anew for each start: nothing that opens a cluster stays valid after it, and no date needs looking after.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.places import API_SERVICE_ADDRESS, BRIDGE_ADDRESS, CLUSTER_DOMAIN, NODE

LIFETIME: Final = dt.timedelta(days=30)
"""Longer than any test run; a cluster that a person keeps open for a month may be started again."""

API_SERVER_NAMES: Final = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
)
API_SERVER_ADDRESSES: Final = ("127.0.0.1", API_SERVICE_ADDRESS, BRIDGE_ADDRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """All that the components need."""

    authority: Path
    api_server: KeyPair
    api_server_to_kubelet: KeyPair
    kubelet_server: KeyPair
    service_account_key: Path
    service_account_public_key: Path
    admin: KeyPair
    controller_manager: KeyPair
    scheduler: KeyPair
    kubelet: KeyPair
    kube_proxy: KeyPair


def make(folder: Path) -> Certificates:
    """Write a new authority and everything that it vouches for into a folder that only its owner may read."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority = _Authority(folder)
    service_account_key = _write_key(folder / "service-account.key", ec.generate_private_key(ec.SECP256R1()))
    return Certificates(
        authority=authority.path,
        api_server=authority.issue(
            "kube-apiserver", names=API_SERVER_NAMES, addresses=API_SERVER_ADDRESSES, server=True
        ),
        api_server_to_kubelet=authority.issue("kube-apiserver-kubelet-client", group="system:masters"),
        kubelet_server=authority.issue(
            NODE, file="kubelet-server", names=(NODE,), addresses=(BRIDGE_ADDRESS,), server=True
        ),
        service_account_key=service_account_key,
        service_account_public_key=_write_public_key(folder / "service-account.pub", service_account_key),
        admin=authority.issue("admin", group="system:masters"),
        controller_manager=authority.issue("system:kube-controller-manager"),
        scheduler=authority.issue("system:kube-scheduler"),
        kubelet=authority.issue(f"system:node:{NODE}", group="system:nodes"),
        kube_proxy=authority.issue("system:kube-proxy"),
    )


class _Authority:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ca.crt"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "llm-sidecar test cluster")])
        certificate = (
            _builder(self._name, issuer=self._name, key=self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        common_name: str,
        *,
        group: str | None = None,
        names: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        server: bool = False,
        file: str | None = None,
    ) -> KeyPair:
        """A certificate for a server, or for a client that Kubernetes knows by this user name and group."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if group is not None:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(x509.Name(attributes), issuer=self._name, key=key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names or addresses:
            alternatives = [
                *(x509.DNSName(name) for name in names),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        stem = file or common_name.replace(":", "-")
        path = self.folder / f"{stem}.crt"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return KeyPair(certificate=path, key=_write_key(self.folder / f"{stem}.key", key))


def _builder(subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A clock that is set back a little must not make it "not yet valid".
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def _write_public_key(path: Path, private: Path) -> Path:
    key = serialization.load_pem_private_key(private.read_bytes(), password=None)
    path.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path
