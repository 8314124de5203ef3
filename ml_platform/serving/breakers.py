"""The breakers of one worker: one a release, kept while the release is in its product's table."""

from collections.abc import Mapping

from ml_platform.serving.breaker import Breaker, BreakerPhase, admit, admits, give_back, phase_at, record_outcome
from ml_platform.serving.deployment import Deployment, Deployments
from ml_platform.serving.loaded import LoadedRelease


class Breakers:
    """What this worker knows of each release's recent answers; each worker finds out by itself (ADR 10)."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments
        self._breakers: dict[str, Breaker] = {}

    def shut(self, deployment: Deployment, now: float) -> frozenset[str]:
        """The releases of a deployment whose breaker lets nothing through now."""
        known = self._breakers
        return frozenset(one for one in deployment.releases if one in known and not admits(known[one], now))

    def admit(self, loaded: LoadedRelease, now: float) -> bool | None:
        """Whether the request that goes to the release is a probe, to be told with its outcome; None: it may not go."""
        if loaded.release_id not in self._breakers:
            self._forget_what_left()
        admission = admit(self._of(loaded), now)
        self._breakers[loaded.release_id] = admission.breaker
        return admission.probe if admission.admitted else None

    def record(self, loaded: LoadedRelease, *, failed: bool | None, probe: bool, now: float) -> None:
        """Takes note of how one request ended; None: in a way that says nothing of the release."""
        breaker = self._of(loaded)
        if failed is not None:
            breaker = record_outcome(breaker, failed=failed, now=now, probe=probe)
        elif probe:
            # Otherwise those who ask what no model answers could keep all places, and with them the breaker open.
            breaker = give_back(breaker)
        self._breakers[loaded.release_id] = breaker

    def phases(self, now: float) -> Mapping[str, BreakerPhase]:
        """The phase of each breaker that has seen a request, by release, as the next request meets it."""
        return {name: phase_at(one, now) for name, one in self._breakers.items()}

    def _of(self, loaded: LoadedRelease) -> Breaker:
        found = self._breakers.get(loaded.release_id)
        return Breaker(rule=loaded.breaker_rule) if found is None else found

    def _forget_what_left(self) -> None:
        """Drops the breakers of releases that serve nowhere any more; it is time to when a new one comes."""
        serving = [self._deployments.of(product) for product in self._deployments.products()]
        kept = {name for one in serving if one is not None for name in one.releases}
        self._breakers = {name: one for name, one in self._breakers.items() if name in kept}
