"""Which windows the metrics show: the last one of each version that is still asked."""

from app.features.drift.metrics import DriftMetrics
from app.features.drift.windows import Closed, Version


class ShownWindows:
    """Sets the gauges of windows, and removes them: an old one would hold its alert for ever.

    Args:
        metrics: that have the gauges.

    """

    def __init__(self, metrics: DriftMetrics) -> None:
        self._metrics = metrics
        self._kinds: dict[Version, set[str]] = {}

    def show(self, version: Version, window: Closed, count: int) -> None:
        """Show a window in the place of the one before.

        Args:
            version: whose it is.
            window: that is full.
            count: windows that have become full since the last one that was shown.

        """
        self.hide(version)
        self._kinds[version] = {distance.kind for distance in window.distances}
        self._metrics.drift_windows.labels(version.model).inc(count)
        for distance in window.distances:
            labels = (*version, distance.kind)
            self._metrics.drift_psi.labels(*labels).set(distance.psi)
            if distance.ks is not None:
                self._metrics.drift_ks.labels(*labels).set(distance.ks)

    def hide(self, version: Version) -> None:
        """Remove the gauges of a version, if it has any."""
        for kind in self._kinds.pop(version, ()):
            self._metrics.drift_psi.remove(*version, kind)
            self._metrics.drift_ks.remove(*version, kind)
