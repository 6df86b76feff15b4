"""How far rankings of the same things agree, each given by scores `[n]`, the best of which is the highest."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from floppy.evaluation.score import bootstrap_interval
from floppy.studies.base import Row, finite

SPEARMAN, KENDALL = "spearmanr", "kendalltau"
"""Rank correlations, as SciPy calls them."""


def best(scores: np.ndarray, count: int) -> list[int]:
    """Places of the best; of equals the first."""
    return np.argsort(-scores, kind="stable")[:count].tolist()


def correlation(kind: str, first: np.ndarray, second: np.ndarray) -> float:
    """`SPEARMAN` or `KENDALL` (τ-b); NaN where all scores of one of the lists are equal, which then ranks nothing."""
    import scipy.stats  # takes a second

    if any((scores == scores[0]).all() for scores in (first, second)):
        return math.nan
    return float(getattr(scipy.stats, kind)(first, second).statistic)


def agreement(kind: str, first: np.ndarray, second: np.ndarray) -> Row:
    """A correlation as `value`, and its 95% `interval`; None for both where a list ranks nothing."""
    return _with_interval(lambda *lists: correlation(kind, *lists), first, second)


def difference(first: np.ndarray, second: np.ndarray, wanted: np.ndarray) -> Row:
    """By how much the first ranking's Spearman correlation with the wanted one exceeds the second's, as `agreement`.

    The interval is paired: all three lists are resampled together.
    """

    def statistic(first: np.ndarray, second: np.ndarray, wanted: np.ndarray) -> float:
        return correlation(SPEARMAN, first, wanted) - correlation(SPEARMAN, second, wanted)

    return _with_interval(statistic, first, second, wanted)


def partial(first: np.ndarray, second: np.ndarray, given: np.ndarray) -> float | None:
    """Spearman's partial correlation of two lists; 0 where `given` alone ranks as one of them does."""
    both = correlation(SPEARMAN, first, second)
    of_first, of_second = (finite(correlation(SPEARMAN, each, given)) or 0.0 for each in (first, second))
    left = (1 - of_first**2) * (1 - of_second**2)
    return finite((both - of_first * of_second) / math.sqrt(left)) if left > 1e-9 else finite(0.0 * both)


def mean_correlation(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Mean Spearman correlation of pairs of rankings; None for no pair, or pairs that rank nothing."""
    found = [correlation(SPEARMAN, *pair) for pair in pairs]
    known = [each for each in found if math.isfinite(each)]
    return float(np.mean(known)) if known else None


def between(rankings: Sequence[np.ndarray]) -> float | None:
    """Mean Spearman correlation of any two rankings; None for a single one."""
    return mean_correlation(list(itertools.combinations(rankings, 2)))


def reliability(rankings: Sequence[np.ndarray]) -> float | None:
    """Of the mean of all rankings: how it would correlate with that of as many new ones (Spearman-Brown formula).

    0 where the rankings do not agree among themselves, None for a single one.
    """
    single = between(rankings)
    if single is None:
        return None
    single = max(0.0, single)
    return len(rankings) * single / (1 + (len(rankings) - 1) * single)


def _with_interval(statistic: Callable[..., float], *lists: np.ndarray) -> Row:
    """A statistic and its percentile-bootstrap interval over what is ranked; None for both where it is no number."""
    value = finite(statistic(*lists))
    if value is None:
        return {"value": None, "interval": None}

    def resampled(*lists: np.ndarray) -> Any:
        return finite(statistic(*lists)) or 0.0  # a resample may rank nothing where the whole does

    return {"value": value, "interval": list(bootstrap_interval(lists, resampled, paired=True, vectorized=False))}
