"""A service that joins the network uninvited, sits at an address where traffic might come, and counts what it gets.

    python -m examples.rogue                                        no certificate: it answers in plain text
    python -m examples.rogue --certificate chain.pem --key key.pem  TLS 1.3 with whatever it has got hold of

It asks nobody for a certificate, refuses nothing and answers `200` to whatever it can read: a gateway that is careless once
has lost. It prints `ready 127.0.0.1:PORT`, and on SIGTERM what it counted:

    {"connections": 2, "handshakes": 2, "application_bytes": 0}

`application_bytes` are those a request could be made of: what came out of TLS or, without a certificate, everything on the
wire that is not itself part of a TLS handshake.
"""
