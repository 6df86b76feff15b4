"""Whether architectures rank on a distilled dataset as they do when PPO trains them on the task.

Neither paper has this experiment. A dataset is of use to architecture search if it tells in
seconds which networks do well in a training that takes far longer.
"""

import dataclasses
import itertools
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from tyro.conf import Positional

from floppy.dataset import DistilledDataset, load
from floppy.errors import MAX_COUNT, FloppyError, one_line, shown
from floppy.evaluation.evaluate import PerLearner, evaluation_of
from floppy.evaluation.score import bootstrap_interval
from floppy.fields import bounded, check_fields
from floppy.files import MEBIBYTE, read_file
from floppy.keys import named_key
from floppy.learner.distribution import parse_distribution
from floppy.learner.network import Learners, Network
from floppy.play import open_arena
from floppy.recipes import steps_of_baseline
from floppy.studies.base import Row, by, check_some, column, finite, scores_of
from floppy.studies.runs import BudgetedRun, configure_method, try_run
from floppy.teach.codec import unpack
from floppy.teach.policies import MAX_LEARNERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DISTILLED, PPO = "distilled", "ppo"
"""The two ways to score an architecture."""

SPACE = tuple(
    f"width={width}:depth={depth}:activation={activation}:initialiser={initialiser}"
    for width, depth, activation, initialiser in itertools.product(
        (4, 16, 64, 128), (1, 3), ("tanh", "relu"), ("orthogonal", "xavier")
    )
)
"""The architectures that are ranked where no others are given."""

LEAST = 3
"""Architectures of a ranking: two are always in order, or in the opposite one."""

EVALUATIONS = 10
"""Along each run of PPO."""

TOP = 5
"""How many of the best of one ranking are looked up in the other."""


SPEARMAN, KENDALL = "spearmanr", "kendalltau"
"""Rank correlations, as SciPy calls them."""


@dataclasses.dataclass(frozen=True)
class Search:
    """Ranks architectures by policies cloned from a dataset and by PPO on its task, and compares the rankings."""

    name: ClassVar[str] = "search"
    dataset: Positional[Path]
    """The dataset's file: distilled for one architecture, or for a mixture of them (distill --distribution A,B)."""
    space: Path | None = None
    """File of the architectures, each a learner distribution of one width and depth: one per line, or a JSON list; by
    default 32 that differ in width, depth, activation and initialiser."""
    trained: int = bounded(0, least=0)
    """How many of them, drawn at random, PPO trains too; 0 for all."""
    env_steps: int = bounded(200_000, least=1, most=MAX_COUNT)
    """Of each run of PPO, rounded up to whole outer steps; its rates are annealed over them."""
    seeds: tuple[int, ...] = bounded((0, 1), least=0, most=2**32 - 1)
    """Of each architecture, both ways."""
    learners: int = bounded(32, least=1, most=MAX_LEARNERS)
    """Fresh policies that are cloned per architecture, seed and rate."""
    episodes: int = bounded(4, least=1, most=MAX_LEARNERS)
    """Of each of these policies."""
    rates: tuple[float, ...] = bounded((1.0,), above=0)
    """Multiples of the dataset's inner rate; of several, an architecture counts with the one that suits it best."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "seeds", "rates")

    def cells(self) -> list[Row]:
        """A way, an architecture and a seed; first all by the dataset, then those that PPO trains.

        Raises:
          FloppyError: for a dataset or a file of architectures that cannot be used.
        """
        dataset, space = load(self.dataset), SPACE if self.space is None else read_space(self.space)
        if dataset.card.is_plain_policy:
            raise FloppyError(f"{self.dataset} is a whole policy, from which nothing is cloned: give one of examples.")
        lesson = unpack(dataset)
        lesson.task()
        for architecture in space:
            count_weights(lesson.network(parse_distribution(architecture)))  # refuses a network that does not fit
            self._ppo(dataset, architecture, self.seeds[0])
        return [
            {"way": way, "architecture": architecture, "seed": seed}
            for way, architectures in ((DISTILLED, space), (PPO, self._sample(space)))
            for architecture in architectures
            for seed in self.seeds
        ]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per rate, or one of PPO.

        `score` is a mean return: of the policies cloned at that rate, or of all evaluations along the run of PPO,
        which tells slow from quick learners where `final`, its last evaluation, no longer does. `seconds` is wall-clock
        time with compilation. What diverged in every evaluation scores -inf, and is the last of its ranking.
        """
        dataset = load(self.dataset)
        architecture = parse_distribution(cell["architecture"])
        if cell["way"] == DISTILLED:
            rows = self._cloned(dataset, architecture, cell["seed"])
        else:
            ended = try_run(self._ppo(dataset, cell["architecture"], cell["seed"]), folder)
            scores = [point.score for point in ended.points] or [-math.inf]
            seconds = ended.totals["seconds"] + ended.compilation
            rows = [{"score": float(np.mean(scores)), "final": scores[-1], "seconds": seconds}]
        weights = count_weights(unpack(dataset).network(architecture))
        return [{"weights": weights} | row for row in rows]

    def summary(self, rows: list[Row]) -> Row:
        """How far the rankings agree, what of it could be had by simpler means, and what each ranking took.

        Correlations are over the architectures that PPO trained, with 95% percentile-bootstrap intervals over them.
        That of the number of weights is what ranking by size alone has, that given the number of weights (a partial
        one) what the dataset knows beyond it. Those between seeds, of one way alone, say how far noise lets any ranking
        agree with that one. A correlation is null where all scores of one of the lists are equal, which then
        ranks nothing.
        """
        ranking = self._ranking(rows)
        both = [entry for entry in ranking if entry[PPO] is not None]
        both.sort(key=lambda entry: entry["architecture"])  # neither ranking decides which of equals are at the top
        distilled, ppo, weights = (column(both, name) for name in (DISTILLED, PPO, "weights"))
        top = min(TOP, len(both))
        return {
            "architectures": len(ranking),
            "trained": len(both),
            "spearman": _agreement(SPEARMAN, distilled, ppo),
            "kendall": _agreement(KENDALL, distilled, ppo),
            "top": top,
            "top_recall": len(set(_best(distilled, top)) & set(_best(ppo, top))) / top,
            "top_recall_by_chance": top / len(both),
            "spearman_with_final": _agreement(SPEARMAN, distilled, column(both, "final")),
            "spearman_of_weights": _agreement(SPEARMAN, weights, ppo),
            "spearman_given_weights": _partial(distilled, ppo, weights),
            "spearman_by_rate": {str(rate): self._spearman_at(rate, rows) for rate in self.rates},
            "spearman_between_seeds": {way: _between_seeds(self._counting(rows, way)) for way in (DISTILLED, PPO)},
            "seconds": {way: float(column(of_way, "seconds").sum()) for way, of_way in by(rows, "way").items()},
            "ranking": ranking,
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """The two ranks of every architecture that PPO trained, coloured by its number of weights."""
        import scipy.stats

        both = [entry for entry in self._ranking(rows) if entry[PPO] is not None]
        axes = figure.subplots()
        distilled, ppo = (scipy.stats.rankdata(-column(both, way)) for way in (DISTILLED, PPO))
        points = axes.scatter(distilled, ppo, c=column(both, "weights"), norm="log", cmap="viridis")
        figure.colorbar(points, ax=axes, label="weights of the network")
        axes.axline((1, 1), slope=1, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel("rank of fresh policies cloned from the dataset")
        axes.set_ylabel("rank of PPO's policy, by mean return along its run")

    def _sample(self, space: tuple[str, ...]) -> list[str]:
        """Those that PPO trains, in the order of the space."""
        count = self.trained or len(space)
        if not LEAST <= count <= len(space):
            raise FloppyError(f"trained must be {LEAST} to the space's {len(space)} architectures, got {count}.")
        chosen = np.random.default_rng(self.seeds[0]).choice(len(space), size=count, replace=False)
        return [space[place] for place in sorted(chosen)]

    def _ppo(self, dataset: DistilledDataset, architecture: str, seed: int) -> BudgetedRun:
        """A run that is evaluated as often and by as many episodes as all others."""
        layers = parse_distribution(architecture).layers
        task = unpack(dataset).task().task_id  # not the card's word for it: that may name a path
        whole = configure_method(PPO, task, seed=seed, distribution=architecture, encoder_layers=layers)
        steps = math.ceil(self.env_steps / steps_of_baseline(whole.config))
        # One policy plays all episodes; that the last evaluation is like the others saves a compilation.
        episodes = self.learners * self.episodes
        config = dataclasses.replace(
            whole.config,
            outer_steps=steps,
            evaluate_every=math.ceil(steps / EVALUATIONS),
            selection_learners=1,
            selection_episodes=episodes,
            score_learners=1,
            score_episodes=episodes,
        )
        return BudgetedRun(config)

    def _cloned(self, dataset: DistilledDataset, architecture: Learners, seed: int) -> list[Row]:
        """All rates in one call; each has its share of the seconds."""
        started = time.monotonic()
        lesson = unpack(dataset)
        task = lesson.task()
        factors = np.repeat(np.array(self.rates), self.learners)
        rates = np.multiply.outer(factors, np.asarray(lesson.distilled.inner_rate, float))
        evaluation = evaluation_of(
            lesson, task, network=lesson.network(architecture), learners=factors.size, episodes=self.episodes
        )
        key, own = named_key(jax.random.key(seed), "search"), PerLearner(rates=jnp.asarray(rates, jnp.float32))
        with open_arena(task) as arena:
            returns = evaluation.of_lesson(lesson, key, arena=arena, own=own)
        scores = scores_of(returns).reshape(len(self.rates), -1).mean(axis=1)
        seconds = (time.monotonic() - started) / scores.size
        return [
            {"rate": rate, "score": float(score), "seconds": seconds}
            for rate, score in zip(self.rates, scores, strict=True)
        ]

    def _counting(self, rows: list[Row], way: str) -> list[Row]:
        """The rows of a way by which architectures count: of the dataset's, those at the best rate for each."""
        of_way = by(rows, "way")[way]
        if way == PPO:
            return of_way
        by_rate = (by(of_architecture, "rate").values() for of_architecture in by(of_way, "architecture").values())
        return [row for rates in by_rate for row in max(rates, key=lambda at: column(at, "score").mean())]

    def _ranking(self, rows: list[Row]) -> list[Row]:
        """An entry per architecture, the best by the dataset first; None where PPO did not train it."""
        trained = by(self._counting(rows, PPO), "architecture")
        entries = [
            {
                "architecture": architecture,
                "weights": counting[0]["weights"],
                DISTILLED: float(column(counting, "score").mean()),
                PPO: float(column(trained[architecture], "score").mean()) if architecture in trained else None,
                "final": float(column(trained[architecture], "final").mean()) if architecture in trained else None,
            }
            for architecture, counting in by(self._counting(rows, DISTILLED), "architecture").items()
        ]
        return sorted(entries, key=lambda entry: -entry[DISTILLED])

    def _spearman_at(self, rate: float, rows: list[Row]) -> float | None:
        """What it would be, if all architectures counted with this rate."""
        at_rate = [row for row in rows if row["way"] == PPO or row["rate"] == rate]
        both = [entry for entry in self._ranking(at_rate) if entry[PPO] is not None]
        return finite(_correlation(SPEARMAN, column(both, DISTILLED), column(both, PPO)))


def count_weights(network: Network[Any]) -> int:
    """Numbers that are trained in a network, log deviations left out."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))._replace(log_std=None)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes) if leaf.shape)


def read_space(path: Path) -> tuple[str, ...]:
    """Architectures from a file: one per line, but for empty lines and what follows a `#`, or a JSON list of texts.

    Raises:
      FloppyError: for a file that cannot be read; for a description that cannot be, that leaves width or depth to
        chance, or that is there twice, with its line or its place in the list.
    """
    try:
        text = read_file(path, "a list of architectures", most=MEBIBYTE).decode()
        entries = json.loads(text) if path.suffix == ".json" else [line.split("#")[0] for line in text.splitlines()]
    except FloppyError:
        raise
    except (ValueError, RecursionError) as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): give a text file or a JSON list.") from error
    if not isinstance(entries, list):
        raise FloppyError(f"{path} must hold a JSON list of learner distributions, got {shown(entries)}.")
    what = "entry" if path.suffix == ".json" else "line"
    places: dict[str, int] = {}
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, str):
            raise FloppyError(f"{path}, {what} {place} must be a learner distribution as text, got {shown(entry)}.")
        if architecture := entry.strip():
            _check_architecture(architecture, f"{path}, {what} {place}")
            if architecture in places:
                raise FloppyError(
                    f"{path}, {what} {place} is {architecture} as is {what} {places[architecture]}: give it once."
                )
            places[architecture] = place
    return tuple(places)


def _check_architecture(architecture: str, place: str) -> None:
    try:
        is_fixed = parse_distribution(architecture).is_fixed
    except FloppyError as error:
        raise FloppyError(f"{place}: {error}") from error
    if not is_fixed:
        raise FloppyError(f"{place} leaves width or depth to chance ({architecture}): give one of each.")


def _best(scores: np.ndarray, count: int) -> list[int]:
    """Places of the best; of equals the first."""
    return np.argsort(-scores, kind="stable")[:count].tolist()


def _correlation(kind: str, first: np.ndarray, second: np.ndarray) -> float:
    """NaN where all scores of one of the lists are equal, which then ranks nothing."""
    import scipy.stats  # takes a second

    if any((scores == scores[0]).all() for scores in (first, second)):
        return math.nan
    return float(getattr(scipy.stats, kind)(first, second).statistic)


def _agreement(kind: str, first: np.ndarray, second: np.ndarray) -> Row:
    """A correlation with its interval over architectures; None for both where a list ranks nothing."""
    value = finite(_correlation(kind, first, second))
    if value is None:
        return {"value": None, "interval": None}

    def statistic(first: np.ndarray, second: np.ndarray) -> float:
        return _correlation_or_0(kind, first, second)  # a resample may rank nothing where the whole does

    interval = bootstrap_interval((first, second), statistic, paired=True, vectorized=False)
    return {"value": value, "interval": list(interval)}


def _correlation_or_0(kind: str, first: np.ndarray, second: np.ndarray) -> float:
    return finite(_correlation(kind, first, second)) or 0.0


def _partial(first: np.ndarray, second: np.ndarray, given: np.ndarray) -> float | None:
    """Spearman's partial correlation of two lists; 0 where `given` alone ranks as one of them does."""
    both = _correlation(SPEARMAN, first, second)
    of_first, of_second = (_correlation_or_0(SPEARMAN, each, given) for each in (first, second))
    left = (1 - of_first**2) * (1 - of_second**2)
    return finite((both - of_first * of_second) / math.sqrt(left)) if left > 1e-9 else finite(0.0 * both)


def _between_seeds(rows: list[Row]) -> float | None:
    """Mean Spearman correlation of the rankings by two seeds; None for a single seed, or seeds that rank nothing."""
    rankings = [column(of_seed, "score") for of_seed in by(rows, "seed").values()]
    found = [_correlation(SPEARMAN, *pair) for pair in itertools.combinations(rankings, 2)]
    known = [each for each in found if math.isfinite(each)]
    return float(np.mean(known)) if known else None
