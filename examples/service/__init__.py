"""A small but real service of the mesh: mutual TLS 1.3, and nobody but the gateway is let in.

    python -m examples.service --name orders --identity state/issued/orders

The identity directory is what `scripts/issue-cert.py orders` wrote. A caller must hold a certificate of the same authority
*and* be the gateway by SPIFFE ID: any other service's certificate passes the handshake and is hung up on. Each request is
answered with JSON about itself, so that a test or a demo can tell what arrived:

    {"service": "orders", "served": 3, "method": "GET", "path": "/orders/7", "headers": {"x-auth-subject": "alice", …},
     "body_bytes": 0}

It prints `ready 127.0.0.1:PORT` when it answers, and ends on SIGTERM.
"""
