"""A security-hardened zero-trust edge gateway: the rooms are described in edge/README.md."""

__version__ = "0.1.0"
