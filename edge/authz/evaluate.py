"""Asking the policies about one request: `Permit` or `Denial`, never an exception, never a doubt.

Laws: default deny; a forbid wins over every permit; a policy that errors, an input that Cedar does not take, an exception
or a panic of the native engine is a denial (`policy-error`). Cedar alone would skip the policy that errors.

A decision is a pure function of the principal, the route, the method and the attributes that the slice mentions. It is
remembered under exactly these, so a remembered decision is never wrong; the memory is bounded, and dies with the
configuration, because each configuration has its own `Authorizer`. Of a user only what the slice mentions decides: a
thousand users with the same scopes cost one evaluation where policies look at scopes alone.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy

from edge.authz import facts
from edge.authz.policies import PolicyBundle
from edge.authz.slices import Slice
from edge.model.decision import Denial, Permit
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.recent import Recent
from edge.model.route import RouteMatch

SETTLED_MAX: Final = 16_384
"""Decisions that only principal, route and method determine; some 10 MB with the principals they keep alive."""
PASSING_MAX: Final = 4_096
"""Decisions that also a path, an address or the time determine: soon stale, so fewer."""
PATH_MAX: Final = 256
"""Longer paths are not remembered, or a few thousand of them would hold much memory."""
TRIES_MAX: Final = 8
"""Evaluations spent on naming the missing scopes of one denial, ~30 µs each."""

_NOTHING_PERMITS: Final = Denial("no-policy-matched")
_FAILED: Final = Denial("policy-error")

_Verdict = tuple[str, ...] | Denial
"""The ids of the permitting policies, or the denial."""


class Authorizer:
    """The policies of one configuration, with the decisions remembered. Owned by one Gateway, used by one thread."""

    def __init__(self, bundle: PolicyBundle) -> None:
        self._bundle = bundle
        # Two generations each: half the bound is a generation's.
        self._settled: Recent[Hashable, _Verdict] = Recent(SETTLED_MAX // 2)
        # (what users have in common, route, method) → the verdict of all of them.
        self._shared: Recent[Hashable, _Verdict] = Recent(PASSING_MAX // 2)
        self._passing: Recent[Hashable, _Verdict] = Recent(PASSING_MAX // 2)
        # (slice, principal, route) → entities, for slices that are asked again and again.
        self._worlds: Recent[Hashable, _World] = Recent(PASSING_MAX // 2)

    def authorize(
        self, request: Request, match: RouteMatch, principal: Principal, peer: Peer, now_ns: int
    ) -> Permit | Denial:
        """Decide. Denials are shared values; a permit is the caller's own."""
        key = (principal, match.route, request.method)
        verdict = self._settled.young.get(key)
        if verdict is None:
            verdict = self._decide(request, match, principal, peer, now_ns)
        if isinstance(verdict, tuple):
            return Permit(principal, match, verdict, key in self._settled.young)
        return verdict

    def _decide(self, request: Request, match: RouteMatch, principal: Principal, peer: Peer, now_ns: int) -> _Verdict:
        try:
            return self._recall(_Question(request, match, principal, peer, now_ns))
        # The one place that must swallow everything: whatever Cedar raises is a denial. A Rust panic comes as a
        # BaseException whose class cannot be imported.
        except BaseException as exc:
            if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
                return _FAILED
            raise

    def _recall(self, question: _Question) -> _Verdict:
        chosen = self._bundle.slices.get((question.match.route.name, question.request.method))
        if chosen is None or not chosen.policies:
            return _NOTHING_PERMITS
        memory = self._settled
        key: tuple[Hashable, ...] = (question.principal, question.match.route, question.request.method)
        if not chosen.is_settled:
            memory = self._passing
            key = (*key, *question.varying(chosen.mentions))
        verdict = memory.find(key)
        if verdict is None:
            verdict = self._ask_once(chosen, question) if chosen.is_settled else self._ask(chosen, question)
            if chosen.is_settled or len(question.request.path) <= PATH_MAX:
                memory.put(key, verdict)
        return verdict

    def _ask_once(self, chosen: Slice, question: _Question) -> _Verdict:
        """Ask for all users at once whom the slice cannot tell from this one."""
        principal = question.principal
        alike = facts.alike(chosen.tells_by, principal)
        if alike is principal:
            return self._ask(chosen, question)
        key = (alike, question.match.route, question.request.method)
        verdict = self._shared.find(key)
        if verdict is None:
            verdict = self._ask(chosen, question)
            self._shared.put(key, verdict)
        return verdict

    def _ask(self, chosen: Slice, question: _Question) -> _Verdict:
        key = (chosen, question.principal, question.match.route)
        world = self._worlds.find(key)
        if world is None:
            world = self._world(chosen, question, question.principal.scopes)
            if world is None:
                return _NOTHING_PERMITS
            if not chosen.is_settled:
                self._worlds.put(key, world)
        result = _evaluate(chosen, world, question)
        # Also where Cedar could not take the question: then it says NoDecision and why.
        if result.diagnostics.errors:
            return Denial("policy-error", _erring(chosen, result.diagnostics.errors))
        reasons = tuple(sorted(result.diagnostics.reasons))
        if result.allowed:
            return reasons
        reason = "forbidden-by-policy" if reasons else "no-policy-matched"
        return Denial(reason, reasons, self._missing_scopes(chosen, question))

    def _world(self, chosen: Slice, question: _Question, scopes: frozenset[str]) -> _World | None:
        entity = facts.principal_entity(question.principal, scopes, self._bundle.service_names)
        if entity is None:
            return None
        added = json.dumps([entity, facts.route_entity(question.match)])
        return _World(entity["uid"], chosen.entities.with_added_json_str(added))

    def _missing_scopes(self, chosen: Slice, question: _Question) -> tuple[str, ...]:
        """The fewest scopes found that would have made this a permit; empty when scopes alone do not help.

        Tried are the scopes that one policy asks for, few first, then all that any asks for; then each is left out again.
        """
        held = question.principal.scopes
        if not facts.is_user(question.principal):
            return ()
        wanted = {each.asked_scopes - held for each in chosen.policies}
        wanted.add(frozenset().union(*wanted))
        tries = TRIES_MAX

        def helps(scopes: frozenset[str]) -> bool:
            nonlocal tries
            tries -= 1
            world = self._world(chosen, question, held | scopes)
            result = None if world is None else _evaluate(chosen, world, question)
            return result is not None and result.allowed and not result.diagnostics.errors

        for scopes in sorted(wanted - {frozenset()}, key=lambda each: (len(each), sorted(each))):
            if tries and helps(scopes):
                for scope in sorted(scopes):
                    if tries and len(scopes) > 1 and helps(scopes - {scope}):
                        scopes -= {scope}
                return tuple(sorted(scopes))
        return ()


@dataclass(slots=True, eq=False)
class _Question:
    """The arguments of one `authorize`, together."""

    request: Request
    match: RouteMatch
    principal: Principal
    peer: Peer
    now_ns: int

    def varying(self, mentions: frozenset[str]) -> tuple[Hashable, ...]:
        return tuple(facts.varying(mentions, self.request, self.match, self.principal, self.peer, self.now_ns))


@dataclass(frozen=True, slots=True)
class _World:
    """The entities of one principal on one route, as Cedar holds them."""

    principal: facts.Uid
    entities: cedarpy.Entities


def _evaluate(chosen: Slice, world: _World, question: _Question) -> cedarpy.AuthzResult:
    entities = world.entities
    if "params" in chosen.mentions:
        entities = entities.with_added_json_str(json.dumps([facts.params_entity(question.match.params)]))
    query = {
        "principal": world.principal,
        "action": facts.action_uid(question.request.method),
        "resource": facts.uid("Route", question.match.route.name),
        "context": facts.context(chosen.mentions, question.request, question.principal, question.peer, question.now_ns),
    }
    return cedarpy.is_authorized(query, chosen.handle, entities)


def _erring(chosen: Slice, errors: Sequence[str]) -> tuple[str, ...]:
    """Ids of the policies that failed, for the record only: Cedar tells them in its messages and nowhere else."""
    said = "error while evaluating policy `{}`"
    return tuple(sorted(each.id for each in chosen.policies if any(e.startswith(said.format(each.id)) for e in errors)))
