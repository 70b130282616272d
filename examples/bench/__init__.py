"""Benchmarks: the gateway as a contestant of somebody else's (`__main__`), and our own quick look (`look`)."""
