"""From nothing to a running edge, and each of its promises put to the test: `scripts/demo [--keep] [--verbose]`.

A real OAuth2 issuer, two real services over mutual TLS, the gateway with its CA, store and log, and the rogues; all of them
processes of their own, set up with the commands a user would type, in a temporary directory and on free ports.

    stage      starts and ends processes, runs commands
    mesh       the set-up: CA, certificates, issuer, services, configuration, gateway
    caller     asks the gateway, and keeps count of every request
    http2      asks it over HTTP/2
    access     promise 1: who may call
    change     promise 2: changes while it runs
    impostors  promise 3: the rogues
    protocols  promise 4: the same over HTTP/2
    together   promise 5: two gateways, one limit
    loss       promise 6: a worker is killed
    evidence   promise 7: the log
    promise    the line per promise
    stranger   an authority outside the mesh
"""
