"""The processes: a supervisor without asyncio and without threads, and the children it forks.

supervisor   start order, replacement of the dead, reload, drain; no request passes here
reactor      the supervisor's loop: file descriptors, signals and timers, nothing else
children     fork with a clean slate (signals, descriptors, name, death with the parent), waits between replacements
notary_link  the supervisor's end of the notary: attach, gone, seal
store        the embedded Valkey: command line, survivors of a killed supervisor, shutdown
validate     one child that parses the files, so that a native crash of a parser is one diagnostic
reload       the two phases: prepare everywhere, then commit everywhere
worker       the process that serves: one event loop, one Gateway, swapped whole
admin        Hypercorn on the admin listener, in the worker's loop
watch        the process that notices edits
control_socket   `edge reload` from outside, peer credentials checked
sockets      listeners kept open over a worker's death; Unix sockets below any directory length
messages     frames between supervisor and worker
run_state    what lies under `state/run` and who may own it
report       lines on stderr

Laws. The supervisor never parses a policy, never runs what a worker sent (JSON only in that direction) and never blocks
on a child. A child never returns into the supervisor's stack. Whatever must survive is signed and on disk; the store is not.
"""
