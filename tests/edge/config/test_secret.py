from __future__ import annotations

import pickle

from edge.config.secret import Secret


def test_secret_shows_itself_to_nobody_who_formats_it() -> None:
    secret = Secret(b"hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {secret!s}"


def test_secret_is_revealed_by_name_and_travels() -> None:
    assert pickle.loads(pickle.dumps(Secret(b"hunter2"))).reveal() == b"hunter2"


def test_empty_secret_is_false() -> None:
    assert (bool(Secret(b"")), bool(Secret(b"x"))) == (False, True)
