"""Programs around the gateway: an issuer and services to try it with. Nothing in `edge/` or `pki/` imports them."""
