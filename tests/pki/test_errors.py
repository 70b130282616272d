from __future__ import annotations

import pickle
import re

import pytest

from pki import errors


@pytest.mark.parametrize("detail", ["", "more"])
def test_a_rule_survives_a_process_boundary(detail: str) -> None:
    copied = pickle.loads(pickle.dumps(errors.SvidRejected("expired", detail)))
    assert (type(copied), copied.rule, copied.detail) == (errors.SvidRejected, "expired", detail)
    assert str(copied) == ("expired: more" if detail else "expired")


def test_the_tree_in_the_docstring_names_every_class() -> None:
    named = set(re.findall(r"[A-Z][A-Za-z]+", errors.__doc__ or ""))
    classes = {c.__name__ for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.PkiError)}
    assert classes - {"RuledPkiError"} <= named
