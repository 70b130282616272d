"""Who has registered and may be sent requests right now, as one worker knows it.

Only what was admitted stands here: proven by the gateway that dialled it, signed, not expired, not revoked, granted by
services.yaml. The room that reads the shared registry puts it in and takes it out; balancing asks at each request, so a
question costs one look into a dict and gives the same tuple until something changes.
"""

from __future__ import annotations

from edge.model.instance import Instance


class Roster:
    """Registered instances by service, each service's in the order of their names.

    Owner: the worker; one event loop, no lock. Outlives reloads.
    """

    def __init__(self) -> None:
        self._services: dict[str, tuple[Instance, ...]] = {}
        self.generation = 0
        """Grows with every change; equal means that every tuple is the same object as before."""

    def instances(self, service: str) -> tuple[Instance, ...]:
        """The same tuple until something changes; empty when nobody registered."""
        return self._services.get(service, ())

    def put(self, instance: Instance) -> None:
        """Add it, or replace the one of the same service and name. What changes nothing is no change."""
        before = self.instances(instance.service)
        others = [each for each in before if each.name != instance.name]
        if len(others) == len(before) or instance not in before:
            self._set(instance.service, (*others, instance))

    def remove(self, service: str, name: str) -> None:
        """Take it out, if it is there."""
        before = self.instances(service)
        left = [each for each in before if each.name != name]
        if len(left) != len(before):
            self._set(service, left)

    def _set(self, service: str, instances: tuple[Instance, ...] | list[Instance]) -> None:
        if instances:
            # By name and not by arrival: every worker and gateway balances over the same order.
            self._services[service] = tuple(sorted(instances, key=lambda each: each.name))
        else:
            del self._services[service]
        self.generation += 1
