"""The gateway as a contestant of a benchmark that brings its own certificates, issuer, store and backend."""
