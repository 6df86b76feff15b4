"""Scores and their intervals, all of which are computed here."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from floppy.errors import DivergedError

BOOTSTRAP_RESAMPLES = 2000
FEW = 20
"""Values of which fewer have an interval by Student's t: of four the bootstrap's held the mean in 78 cases of 100."""

CLONES_DIVERGED = "Every fresh learner diverged: give a smaller inner rate, or examples of smaller size."
POLICIES_DIVERGED = "No policy had a finite return: train again at a lower rate, or check the task's rewards."
RANDOM_DIVERGED = "Random actions had no finite return: check the task's rewards."
"""What is said where no return of fresh clones, of policies that are not cloned, or of random actions is finite."""


@dataclasses.dataclass(frozen=True)
class Score:
    """What `L` policies reach, each over `episodes` complete episodes."""

    mean: float
    """Mean undiscounted episode return."""
    sd: float
    """Sample standard deviation over learners of a learner's mean return; 0 for one learner."""
    worst: float
    """Mean return of the learner that has the lowest one."""
    ci95: tuple[float, float]
    """95% confidence interval of the mean; over learners, or over one learner's episodes. See `mean_interval`."""
    learners: int
    episodes: int
    """Per learner."""
    max_share: float | None
    """Share of learners that reach the task's highest return in every episode, where that is known."""
    diverged: int
    """Learners with an episode whose return is no finite number; such an episode counts as the worst of all others."""
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"ci95": list(self.ci95)}


def score_returns(
    returns: np.ndarray, max_return: float | None, seed: int, *, complaint: str = CLONES_DIVERGED
) -> Score:
    """Summarises returns `[L, episodes]`; `seed` also seeds the bootstrap.

    The interval is over learners, for the question is how the next fresh learner will do; of one learner it is over the
    episodes. It ends at the highest possible return.

    Raises:
      DivergedError: with the complaint, if no return is finite.
    """
    diverged = int(np.sum(~np.all(np.isfinite(returns), axis=1)))
    # Of the raw returns: a diverged learner never counts as at the maximum.
    at_max = None if max_return is None else float(np.mean(np.all(returns >= max_return, axis=1)))
    returns = finite_returns(returns, complaint)
    means = learner_means(returns)
    learners, episodes = returns.shape
    units = means if learners > 1 else returns[0].astype(np.float64)
    mean, (low, high) = float(means.mean()), mean_interval(units, seed)
    return Score(
        mean=mean,
        sd=float(means.std(ddof=1)) if learners > 1 else 0.0,
        worst=float(means.min()),
        ci95=(low, high if max_return is None else max(mean, min(high, max_return))),
        learners=learners,
        episodes=episodes,
        max_share=at_max,
        diverged=diverged,
        seed=seed,
    )


def learner_means(returns: np.ndarray) -> np.ndarray:
    """Mean return `[L]` of each learner, from returns `[L, episodes]`; see `finite_returns` for those that diverged."""
    means: np.ndarray = finite_returns(returns).mean(axis=1, dtype=np.float64)
    return means


def finite_returns(returns: np.ndarray, complaint: str = CLONES_DIVERGED) -> np.ndarray:
    """Returns `[L, episodes]` in which those of clones or physics that diverged are the worst of the others.

    Raises:
      DivergedError: with the complaint, if none is finite.
    """
    finite = np.isfinite(returns)
    if not finite.any():
        raise DivergedError(complaint)
    return np.where(finite, returns, returns[finite].min())


def standard_error(sd: float, learners: int) -> float:
    """Of the mean over learners, from their standard deviation; see `Score.sd`."""
    return sd / math.sqrt(learners)


def mean_interval(values: Sequence[float] | np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% interval of the mean of values `[n]`: a percentile bootstrap, or Student's t where they are fewer than `FEW`.

    The t interval is exact for normal values; of strongly skewed ones it too holds the mean less often.
    """
    if 1 < len(values) < FEW:
        import scipy.special

        middle, sd = float(np.mean(values)), float(np.std(values, ddof=1))
        reach = float(scipy.special.stdtrit(len(values) - 1, 0.975)) * standard_error(sd, len(values))
        return middle - reach, middle + reach

    def mean(sample: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(sample.mean(axis=axis))

    return bootstrap_interval([np.asarray(values, np.float64)], mean, seed)


def bootstrap_interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., Any], seed: int = 0, **options: Any
) -> tuple[float, float]:
    """95% percentile-bootstrap interval of a statistic of samples; the options are those of SciPy's bootstrap."""
    import scipy.stats  # takes a second

    found = scipy.stats.bootstrap(
        # SciPy asks for two values of each.
        [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in samples],
        statistic,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
        **options,
    ).confidence_interval
    return float(found.low), float(found.high)


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the middle half of the values (Agarwal et al., 2021)."""
    import scipy.stats

    return float(scipy.stats.trim_mean(values, 0.25))


def stratified_interval(strata: Sequence[Sequence[float] | np.ndarray], seed: int = 0) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the interquartile mean; each stratum is resampled by itself.

    Args:
      strata: values of each seed or task.
      seed: of the resampling.
    """
    import scipy.stats

    def statistic(*samples: np.ndarray, axis: int) -> np.ndarray:
        kept = [
            sample.take([0], axis=axis) if len(stratum) == 1 else sample
            for sample, stratum in zip(samples, strata, strict=True)
        ]
        return np.asarray(scipy.stats.trim_mean(np.concatenate(kept, axis=axis), 0.25, axis=axis))

    if all(len(stratum) == 1 for stratum in strata):  # nothing to resample
        only = interquartile_mean(np.concatenate([np.asarray(stratum) for stratum in strata]))
        return only, only
    return bootstrap_interval([np.asarray(stratum) for stratum in strata], statistic, seed)
