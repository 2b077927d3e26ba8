"""What is made, what is renewed, and who is trusted meanwhile. Time is an argument."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from llm_operator.certificates import (
    AUTHORITY_LIFE,
    SERVING_LIFE,
    Certificates,
    authorities_in,
    issue,
    renew,
    service_names,
)
from tests.webhook.reviews import NOW

NAMES = service_names("llm-sidecar-webhook", namespace="llm-system")


def _fresh(now: datetime = NOW) -> Certificates:
    return renew(None, trusted=None, names=NAMES, now=now)


def _steps(stored: Certificates, *, start: datetime, days: float, every_hours: float = 12) -> list[Certificates]:
    """What is stored as time goes on, where the API server trusts at each step what the one before stored."""
    states, trusted = [stored], stored.trusted
    for step in range(1, int(days * 24 / every_hours) + 1):
        now = start + timedelta(hours=every_hours * step)
        states.append(renew(states[-1], trusted=trusted, names=NAMES, now=now))
        trusted = states[-1].trusted
    return states


def test_the_serving_certificate_is_for_the_service_and_lives_a_week() -> None:
    made = _fresh()
    serving, authority = made.serving.certificate, made.authority.certificate
    names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "llm-sidecar-webhook.llm-system.svc",
        "llm-sidecar-webhook.llm-system.svc.cluster.local",
    ]
    assert serving.not_valid_after_utc == NOW + SERVING_LIFE
    assert authority.not_valid_after_utc == NOW + AUTHORITY_LIFE
    assert serving.not_valid_before_utc < NOW
    serving.verify_directly_issued_by(authority)


def test_what_is_stored_is_read_back() -> None:
    made = _fresh()
    read = Certificates.from_secret(made.to_secret())
    assert read is not None
    assert read.to_secret() == made.to_secret()


def test_nothing_changes_while_nothing_is_due() -> None:
    made = _fresh()
    assert renew(made, trusted=made.trusted, names=NAMES, now=NOW + timedelta(days=4)) is made


def test_the_serving_certificate_is_renewed_at_two_thirds_of_its_life() -> None:
    made = _fresh()
    renewed = renew(made, trusted=made.trusted, names=NAMES, now=NOW + timedelta(days=4, hours=17))
    assert renewed.authority == made.authority
    assert renewed.serving.certificate.not_valid_after_utc == NOW + timedelta(days=11, hours=17)


def test_other_names_need_another_certificate_at_once() -> None:
    made = _fresh()
    renewed = renew(made, trusted=made.trusted, names=service_names("other", namespace="x"), now=NOW)
    assert renewed.serving != made.serving


def test_a_new_authority_signs_nothing_before_it_is_trusted() -> None:
    due = NOW + timedelta(days=250)
    first = _fresh()
    made = renew(first, trusted=first.trusted, names=NAMES, now=NOW + timedelta(days=240))
    made = Certificates(made.authority, issue(made.authority, names=NAMES, now=due - timedelta(days=1)))
    renewed = renew(made, trusted=made.trusted, names=NAMES, now=due)
    assert renewed.authority != made.authority
    assert renewed.serving is made.serving
    assert renewed.retired == (made.authority.certificate,)
    assert renew(renewed, trusted=made.trusted, names=NAMES, now=due) is renewed
    trusted = renew(renewed, trusted=renewed.trusted, names=NAMES, now=due)
    trusted.serving.certificate.verify_directly_issued_by(renewed.authority.certificate)


def test_through_a_year_and_more_whatever_is_shown_is_trusted() -> None:
    """At each step the certificates of the last week, which some pod may still show, verify against the bundle."""
    states = _steps(_fresh(), start=NOW, days=500)
    assert len({state.authority.certificate for state in states}) == 3
    for step, state in enumerate(states):
        now = NOW + timedelta(hours=12 * step)
        bundle = authorities_in(state.trusted)
        for shown in {earlier.serving.certificate for earlier in states[max(0, step - 14) : step + 1]}:
            if shown.not_valid_after_utc > now:
                assert any(_verifies(shown, authority) for authority in bundle)
        assert state.serving.certificate.not_valid_after_utc > now
        assert len(bundle) <= 2


def test_an_old_authority_is_dropped_a_week_after_its_successor() -> None:
    states = _steps(_fresh(), start=NOW, days=260)
    assert states[-1].retired == ()
    assert states[-1].authority != states[0].authority


def _verifies(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("days", [8, 300, 366, 5000])
def test_it_recovers_from_any_expired_state(days: int) -> None:
    """A cluster that slept: what must be replaced may not be needed to replace it."""
    made, now = _fresh(), NOW + timedelta(days=days)
    recovered = made
    for _ in range(3):
        recovered = renew(recovered, trusted=recovered.trusted, names=NAMES, now=now)
    assert recovered.serving.certificate.not_valid_after_utc > now
    recovered.serving.certificate.verify_directly_issued_by(recovered.authority.certificate)
    assert all(one.not_valid_after_utc > now for one in authorities_in(recovered.trusted))


def test_a_certificate_from_the_future_is_replaced() -> None:
    """A clock was set back."""
    made = _fresh(NOW + timedelta(days=1000))
    assert renew(made, trusted=made.trusted, names=NAMES, now=NOW).authority != made.authority


def test_after_a_lost_secret_what_pods_still_show_stays_trusted() -> None:
    lost = _fresh()
    made = renew(None, trusted=lost.trusted, names=NAMES, now=NOW + timedelta(days=1))
    assert authorities_in(made.trusted) == (made.authority.certificate, lost.authority.certificate)


def test_a_secret_lost_again_and_again_does_not_grow_the_bundle_without_end() -> None:
    trusted = None
    for _ in range(9):
        trusted = renew(None, trusted=trusted, names=NAMES, now=NOW).trusted
    assert len(authorities_in(trusted)) == 4


@pytest.mark.parametrize("bundle", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_unreadable_bundle_counts_as_none(bundle: bytes) -> None:
    assert authorities_in(bundle) == ()


@pytest.mark.parametrize("key", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "another's"])
def test_a_damaged_secret_counts_as_absent(key: str, damage: str) -> None:
    data = _fresh().to_secret()
    match damage:
        case "missing":
            del data[key]
        case "empty":
            data[key] = b""
        case "garbage":
            data[key] = data[key][:90]
        case _:
            data[key] = _fresh().to_secret()[key]
    assert Certificates.from_secret(data) is None


def test_openssl_accepts_it_with_its_strictest_checks(tmp_path: Path) -> None:
    """The API server is written in Go, but whoever verifies by the letter of the standard must find nothing."""
    data = _fresh(datetime.now(NOW.tzinfo)).to_secret()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (tmp_path / "pair.pem").write_bytes(data["tls.crt"] + data["tls.key"])
    server.load_cert_chain(tmp_path / "pair.pem")
    client = ssl.create_default_context(cadata=data["ca.crt"].decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=NAMES[0]),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[int] = set()
    for _ in range(8):
        for position, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(position)
            except ssl.SSLWantReadError:
                pass
    assert done == {0, 1}
