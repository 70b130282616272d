"""Drop-in verifiers for services behind the gateway: is it a gateway that calls, and whom does it vouch for?

`AsgiVerifier` and `WsgiVerifier` stand in front of an application; `Verifier` is the same judgement as a function. The room
stands alone: it uses `pki` and `cryptography`, and nothing else of `edge`, so that a service installs no gateway.
"""

from edge.verify.asgi import AsgiVerifier
from edge.verify.claims import Caller
from edge.verify.rules import RULES, AssertionRefused, BadSettings
from edge.verify.verifier import Presented, Settings, Verifier
from edge.verify.wsgi import WsgiVerifier

__all__ = [
    "RULES",
    "AsgiVerifier",
    "AssertionRefused",
    "BadSettings",
    "Caller",
    "Presented",
    "Settings",
    "Verifier",
    "WsgiVerifier",
]
