from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.limit.rules import BadSetting
from edge.limit.store import StoreSettings, parse_store


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/v.sock", StoreSettings("/run/v.sock")),
        ("unix:///run/a%20b.sock?db=3", StoreSettings("/run/a b.sock", db=3)),
        ("valkey://127.0.0.1", StoreSettings(addresses=(("127.0.0.1", 6379),))),
        ("redis://localhost:7000/2", StoreSettings(addresses=(("localhost", 7000),), db=2)),
        ("redis://[::1]:7000", StoreSettings(addresses=(("::1", 7000),))),
        (
            "valkeys://u:p%40w@store.internal:6380/1?ssl_ca_certs=/etc/ca.pem",
            StoreSettings(
                addresses=(("store.internal", 6380),),
                tls=True,
                db=1,
                username="u",
                password="p@w",
                ca_file="/etc/ca.pem",
            ),
        ),
        (
            "rediss+cluster://:p@a.internal:1,b.internal:2",
            StoreSettings(addresses=(("a.internal", 1), ("b.internal", 2)), topology="cluster", tls=True, password="p"),
        ),
        (
            "valkeys+sentinel://a.internal,b.internal:2/main/4?ssl_certfile=/c&ssl_keyfile=/k",
            StoreSettings(
                addresses=(("a.internal", 26379), ("b.internal", 2)),
                topology="sentinel",
                tls=True,
                db=4,
                master="main",
                certificate_file="/c",
                key_file="/k",
            ),
        ),
    ],
)
def test_every_documented_spelling_is_read(url: str, expected: StoreSettings) -> None:
    assert expected == parse_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://127.0.0.1/",
        "valkeyss://127.0.0.1/",
        "valkey://",
        "valkey://127.0.0.1:0",
        "valkey://127.0.0.1:65536",
        "valkey://127.0.0.1:x",
        "valkey://127.0.0.1,127.0.0.2",
        "valkey://127.0.0.1/one",
        "valkey://127.0.0.1/1/2",
        "valkey://127.0.0.1/#f",
        "valkey://10.0.0.1:6379",
        "valkey://store.internal:6379",
        "valkey://localhost.example.com",
        "valkey+cluster://127.0.0.1,10.0.0.2",
        "valkeys+cluster://a.internal/1",
        "valkeys+sentinel://a.internal",
        "valkeys://a.internal?ssl_cert_reqs=none",
        "valkeys://a.internal?ssl_check_hostname=false",
        "valkeys://a.internal?ssl_certfile=/c",
        "valkeys://a.internal?x",
        "valkey://127.0.0.1?ssl_ca_certs=/c",
        "unix://host/path",
        "unix:relative",
        "unix:///s?db=x",
        "unix:///s?password=x",
        "unix:///" + "x" * 107,
        "valkeys://[::1",
    ],
)
def test_unsafe_or_unreadable_stores_are_refused(url: str) -> None:
    assert isinstance(parse_store(url), BadSetting)


def test_the_password_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(parse_store("valkeys://u:hunter2@a.internal"))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="valkeyrdisunx+cluter:/@.,0127[]?#=&% s", max_size=40))
def test_any_text_gives_settings_or_a_fault(url: str) -> None:
    assert isinstance(parse_store(url), StoreSettings | BadSetting)
