"""Which certificate the public listener shows for which host, and what is told about those that no client would accept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edge.config.certificates import finding
from edge.config.parse import parse
from edge.config.settings import Config
from tests.edge.config.house import EDGE, faults, sources
from tests.edge.config.test_trust import key, key_pem

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def certificate(*names: str, common_name: str | None = None) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key("gateway").public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if names:
        general: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() or ":" in name else x509.DNSName(name)
            for name in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(key("gateway"), hashes.SHA256()).public_bytes(Encoding.PEM)


def edge(hosts: str, tls: str) -> str:
    public = f'  public: {{bind: "127.0.0.1:8443", hosts: [{hosts}], tls: {tls}}}\n'
    return EDGE.replace(EDGE.splitlines(keepends=True)[2], public)


FILES = {
    "a.pem": certificate("a.edge.test", "10.0.0.1", "::1"),
    "b.pem": certificate("B.edge.test"),
    "star.pem": certificate("*.edge.test"),
    "cn.pem": certificate(common_name="a.edge.test"),
    "key.pem": key_pem(),
}


def tls(*names: str) -> str:
    return "[" + ", ".join(f"{{certificate: {name}.pem, key: key.pem}}" for name in names) + "]"


def config(hosts: str, given: str) -> Config:
    return parse(sources(edge(hosts, given), files=FILES))


def shown(hosts: str, given: str) -> list[tuple[tuple[str, ...], list[str]]]:
    names = {raw: name for name, raw in FILES.items()}
    return [
        (each.hosts, [names[pair.chain_pem] for pair in each.pairs])
        for each in config(hosts, given).listeners.public.shown
    ]


@pytest.mark.parametrize(
    ("hosts", "given", "expected"),
    [
        ("a.edge.test", "{certificate: a.pem, key: key.pem}", [(("a.edge.test",), ["a.pem"])]),
        ('a.edge.test, "10.0.0.1", "::1"', tls("a"), [(("a.edge.test", "10.0.0.1", "[::1]"), ["a.pem"])]),
        ("a.edge.test, b.edge.test", tls("a", "b"), [(("a.edge.test",), ["a.pem"]), (("b.edge.test",), ["b.pem"])]),
        ("b.edge.test, a.edge.test", tls("a", "b"), [(("a.edge.test",), ["a.pem"]), (("b.edge.test",), ["b.pem"])]),
        (
            "a.edge.test, c.edge.test",
            tls("star", "a"),  # by name before by wildcard, whatever the order
            [(("c.edge.test",), ["star.pem"]), (("a.edge.test",), ["a.pem", "star.pem"])],
        ),
        ("a.edge.test, a.b.edge.test", tls("a", "star"), [(("a.edge.test", "a.b.edge.test"), ["a.pem", "star.pem"])]),
        (
            "a.edge.test, c.edge.test",
            "[{certificate: a.pem, key: key.pem}, {certificate: star.pem, key: key.pem, hosts: [C.edge.test]}]",
            [(("a.edge.test",), ["a.pem"]), (("c.edge.test",), ["star.pem"])],
        ),
    ],
)
def test_a_host_gets_the_certificates_that_name_it(
    hosts: str, given: str, expected: list[tuple[tuple[str, ...], list[str]]]
) -> None:
    assert shown(hosts, given) == expected


def test_a_host_that_no_certificate_names_gets_the_first_and_is_told() -> None:
    found = config("a.edge.test, a.b.edge.test, edge.test", tls("a", "star"))
    assert found.listeners.public.uncovered == ("a.b.edge.test", "edge.test")
    assert "listeners.public.tls: no certificate is for a.b.edge.test, edge.test" in found.warnings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "5",
            "edge.yaml:3:76: wrong-value: listeners.public.tls: expected a certificate with its key, or a list of them",
        ),
        (
            "[]",
            "edge.yaml:3:76: wrong-value: listeners.public.tls: expected a certificate with its key, or a list of them",
        ),
        (
            "{certificate: a.pem}",
            "edge.yaml:3:76: missing-key: listeners.public.tls.key: this key is required; add key:",
        ),
        (
            "{certificate: a.pem, key: key.pem, host: [a.edge.test]}",
            "edge.yaml:3:111: unknown-key: listeners.public.tls.host: no such setting; did you mean hosts?",
        ),
        (
            "[{certificate: a.pem, key: key.pem}, {certificate: a.pem, keys: key.pem}]",
            "edge.yaml:3:134: unknown-key: listeners.public.tls[1].keys: no such setting; did you mean key?",
        ),
        (
            "[{certificate: a.pem, key: key.pem, hosts: [b.edge.test]}]",
            "edge.yaml:3:120: certificate-names: listeners.public.tls[0].hosts[0]: the certificate is not for b.edge.test, "
            "but for 10.0.0.1, [::1], a.edge.test; give one that names the host",
        ),
        (
            "{certificate: a.pem, key: key.pem, hosts: [z.edge.test]}",
            "edge.yaml:3:119: unknown-host: listeners.public.tls.hosts[0]: the public listener does not answer",
        ),
        (
            "[{certificate: a.pem, key: key.pem}, {certificate: a.pem, key: gone.pem}]",
            "edge.yaml:3:139: missing-file: listeners.public.tls[1].key: cannot read gone.pem",
        ),
        (
            "[{certificate: a.pem, key: key.pem}, {certificate: key.pem, key: a.pem}]",
            "edge.yaml:3:127: certificate: listeners.public.tls[1].certificate: no certificate in PEM",
        ),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(given: str, said: str) -> None:
    found = faults(sources(edge("a.edge.test, b.edge.test", given), files=FILES))
    assert any(fault.startswith(said) for fault in found), found


@pytest.mark.parametrize(
    ("name", "at", "rule", "said"),
    [
        ("a", NOW + timedelta(days=1), "certificate-expired", "public: it has ended"),
        ("a", NOW - timedelta(seconds=1), "certificate-not-yet-valid", "public: it does not count yet"),
        ("b", NOW, "certificate-names", "public: it is for none of the listener's hosts, but for b.edge.test"),
        ("cn", NOW, "certificate-names", "but for no DNS name or address (the common name is not read)"),
    ],
)
def test_a_certificate_that_no_client_accepts_is_a_finding_where_it_is_named(
    name: str, at: datetime, rule: str, said: str
) -> None:
    (facts,) = config("a.edge.test", tls(name)).certificates
    found = finding(facts, at.timestamp())
    assert found is not None
    assert (found.file, found.line, found.column, found.rule) == ("edge.yaml", 3, 78, rule)
    assert said in found.message


def test_a_good_certificate_is_no_finding_and_each_has_a_name_of_its_own() -> None:
    found = config("a.edge.test, b.edge.test", tls("a", "star"))
    assert [each.name for each in found.certificates] == ["public:a.pem", "public:star.pem"]
    assert [finding(each, NOW.timestamp()) for each in found.certificates] == [None, None]
    assert {each.not_after_s - each.not_before_s for each in found.certificates} == {86_400}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("", "max-age=31536000"),
        ("hsts: off, ", None),
        ("hsts: {max_age_s: 60, include_subdomains: true}, ", "max-age=60; includeSubDomains"),
        ("hsts: {max_age_s: 0}, ", "max-age=0"),
    ],
)
def test_hsts_is_on_unless_it_is_turned_off(setting: str, value: str | None) -> None:
    text = edge("a.edge.test", tls("a")).replace("hosts:", f"{setting}hosts:")
    assert parse(sources(text, files=FILES)).listeners.public.hsts == value


@pytest.mark.parametrize("setting", ["hsts: on", "hsts: 5", "hsts: {max_age_s: -1}", "hsts: {maxage: 5}"])
def test_hsts_that_says_nothing_sensible_is_a_fault(setting: str) -> None:
    text = edge("a.edge.test", tls("a")).replace("hosts:", f"{setting}, hosts:")
    (found,) = faults(sources(text, files=FILES))
    assert "listeners.public.hsts" in found
