"""The processes: a supervisor without asyncio and without threads, and the children it forks.

supervisor      start order, replacement of the dead, drain; no request passes here
reactor         its loop: file descriptors, signals and timers, nothing else
children        fork with a clean slate (signals, descriptors, name, death with the parent), waits between replacements
errand          work in a short-lived child: judging the files (outline), making the gateway's certificates (renewal)
store           the embedded Valkey: command line, survivors of a killed supervisor, shutdown
notary_link     the supervisor's end of the notary: attach, gone, seal; own_log: its own lines in the access log
pool            the supervisor's end of the workers: start, replace, tell, drain; messages: the frames between them
reload          from a cause to its answer; two_phase: prepare everywhere, then commit everywhere, without I/O
watch           the process that notices edits
control_socket  `edge reload` from outside, peer credentials checked
run_state       what lies under `state/run`, and that only one gateway runs on it
sockets         listeners kept open over a worker's death
worker          the process that serves, and how it obeys
serving         what a worker has open: front, listeners, the generation in force; admin: Hypercorn in its loop
report          lines on stderr

Laws. The supervisor never parses a policy, never runs what a worker sent (JSON only in that direction) and never blocks
on a child. A child never returns into the supervisor's stack. Whatever must survive is signed and on disk; the store is not.
"""
