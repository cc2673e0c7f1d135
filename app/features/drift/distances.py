"""How far two distributions are from each other: PSI and KS of counted bins."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
# As many as the index is usually taken with.
GROUPS = 10
# Added to each group: without it one that is empty on one side would make the index infinite.
SMOOTHING = 0.5


def psi(reference: IntArray, window: IntArray) -> float:
    """Return the population stability index of two counts of the same groups.

    The sum of (q - p) * ln(q / p), with p and q the shares of a group; also known as the Jeffreys
    divergence. 0 for equal shares, and without an upper bound.
    """
    p, q = _shares(reference), _shares(window)
    return float(np.sum((q - p) * np.log(q / p)))


def excess(reference: IntArray, window: IntArray) -> float:
    """Return the index less what chance alone makes of it; 0 where that is more.

    Of two samples of one distribution it is (1/n + 1/m) times a chi-square variable with groups - 1
    degrees of freedom (B. Yurdakul, Statistical properties of population stability index, 2018).
    Less its mean, it can be compared whatever the number of groups and rows.
    """
    chance = (len(reference) - 1) * (1 / reference.sum() + 1 / window.sum())
    return max(0.0, psi(reference, window) - float(chance))


def ks(reference: IntArray, window: IntArray) -> float:
    """Return the Kolmogorov-Smirnov statistic of two counts of the same bins, in their order.

    The largest difference of the two cumulative shares, as far as bins tell values apart.
    """
    p, q = (np.cumsum(counts) / counts.sum() for counts in (reference, window))
    return float(np.max(np.abs(q - p)))


def _shares(counts: IntArray) -> npt.NDArray[np.float64]:
    smoothed = counts + SMOOTHING
    shares: npt.NDArray[np.float64] = smoothed / smoothed.sum()
    return shares


def grouped(reference: IntArray, window: IntArray) -> tuple[IntArray, IntArray]:
    """Return both counts in groups of neighbouring bins, of about a tenth of the reference each.

    So each group has enough rows: in bins that are as fine as these chance alone would differ.
    """
    starts = _starts(reference)
    return np.add.reduceat(reference, starts), np.add.reduceat(window, starts)


def _starts(reference: IntArray) -> Sequence[int]:
    """Return the first bin of each group; a group ends with the bin that fills it."""
    wanted, within, starts = reference.sum() / GROUPS, 0, [0]
    for place, count in enumerate(reference[:-1].tolist()):
        within += count
        if within >= wanted:
            starts.append(place + 1)
            within = 0
    return starts
