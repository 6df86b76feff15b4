"""Whether architectures rank on a distilled dataset as they do when PPO trains them on the task.

Neither paper has this experiment. A dataset is of use to architecture search if it tells in
seconds which networks do well in a training that takes far longer.
"""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from tyro.conf import Positional

from floppy.arena import open_arena
from floppy.dataset import DistilledDataset, load
from floppy.errors import MOST, FloppyError, check_number, one_line, shown
from floppy.evaluate import learner_means, returns_of
from floppy.keys import named_key
from floppy.learners import LearnerDistribution, parse_distribution
from floppy.outer import PPMO
from floppy.studies._runs import Limited, check_seeds, limited, run
from floppy.studies.base import Row, by, column, percentile_interval
from floppy.train import MOST_LEARNERS, distilled_of, network_for, task_of

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


Measure = Callable[[np.ndarray, np.ndarray], Any]
"""Of the agreement of two lists of scores; its result has a `statistic`."""


@dataclasses.dataclass(frozen=True)
class Search:
    """Ranks architectures by policies cloned from a dataset and by PPO on its task, and compares the rankings."""

    name: ClassVar[str] = "search"
    dataset: Positional[Path]
    """The dataset's file: distilled for one architecture, or for a mixture of them (distill --distribution A,B)."""
    space: Path | None = None
    """File of the architectures, each a learner distribution of one width and depth: one per line, or a JSON list; by
    default 32 that differ in width, depth, activation and initialiser."""
    trained: int = 0
    """How many of them, drawn at random, PPO trains too; 0 for all."""
    env_steps: int = 200_000
    """Of each run of PPO, rounded up to whole outer steps; its rates are annealed over them."""
    seeds: tuple[int, ...] = (0, 1)
    """Of each architecture, both ways."""
    learners: int = 32
    """Fresh policies that are cloned per architecture, seed and rate."""
    episodes: int = 4
    """Of each of these policies."""
    rates: tuple[float, ...] = (1.0,)
    """Multiples of the dataset's inner rate; of several, an architecture counts with the one that suits it best."""

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        for count in ("learners", "episodes"):
            check_number(count, getattr(self, count), least=1, most=MOST_LEARNERS)
        check_number("trained", self.trained, least=0)
        check_number("env_steps", self.env_steps, least=1, most=MOST)
        check_seeds(self.seeds)
        for rate in self.rates:
            check_number("rates", rate, above=0)
        if not self.rates:
            raise FloppyError("A search got no rates: give at least one.")

    def cells(self) -> list[Row]:
        """A way, an architecture and a seed; first all by the dataset, then those that PPO trains.

        Raises:
          FloppyError: for a dataset or a file of architectures that cannot be used.
        """
        dataset, space = load(self.dataset), SPACE if self.space is None else read_space(self.space)
        if dataset.card.is_plain_policy:
            raise FloppyError(f"{self.dataset} is a whole policy, from which nothing is cloned: give one of examples.")
        task_of(dataset)
        for architecture in space:
            network_for(dataset, parse_distribution(architecture))
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
        time with compilation.
        """
        dataset = load(self.dataset)
        architecture = parse_distribution(cell["architecture"])
        if cell["way"] == DISTILLED:
            rows = self._cloned(dataset, architecture, cell["seed"])
        else:
            ended = run(self._ppo(dataset, cell["architecture"], cell["seed"]), folder)
            scores = [point.score for point in ended.points]
            if not scores:
                raise FloppyError(f"PPO of {cell['architecture']} diverged in every evaluation: leave it out.")
            seconds = ended.totals["seconds"] + ended.compilation
            rows = [{"score": float(np.mean(scores)), "final": scores[-1], "seconds": seconds}]
        shapes = network_for(dataset, architecture).kernel_shapes
        weights = sum(math.prod(shape) + shape[-1] for shape in shapes)
        return [{"weights": weights} | row for row in rows]

    def summary(self, rows: list[Row]) -> Row:
        """How far the rankings agree, what of it could be had by simpler means, and what each ranking took.

        Correlations are over the architectures that PPO trained, with 95% percentile-bootstrap intervals over them.
        That of the number of weights is what ranking by size alone has, that given the number of weights (a partial
        one) what the dataset knows beyond it. Those between seeds, of one way alone, say how far noise lets any ranking
        agree with that one.
        """
        ranking = self._ranking(rows)
        both = [entry for entry in ranking if entry[PPO] is not None]
        both.sort(key=lambda entry: entry["architecture"])  # neither ranking decides which of equals are at the top
        distilled, ppo, weights = (column(both, name) for name in (DISTILLED, PPO, "weights"))
        top = min(TOP, len(both))
        return {
            "architectures": len(ranking),
            "trained": len(both),
            "spearman": _agreement(scipy.stats.spearmanr, distilled, ppo),
            "kendall": _agreement(scipy.stats.kendalltau, distilled, ppo),
            "top": top,
            "top_recall": len(set(_best(distilled, top)) & set(_best(ppo, top))) / top,
            "top_recall_by_chance": top / len(both),
            "spearman_with_final": _agreement(scipy.stats.spearmanr, distilled, column(both, "final")),
            "spearman_of_weights": _agreement(scipy.stats.spearmanr, weights, ppo),
            "spearman_given_weights": _partial(distilled, ppo, weights),
            "spearman_by_rate": {str(rate): self._spearman_at(rate, rows) for rate in self.rates},
            "spearman_between_seeds": {way: _between_seeds(self._counting(rows, way)) for way in (DISTILLED, PPO)},
            "seconds": {way: float(column(of_way, "seconds").sum()) for way, of_way in by(rows, "way").items()},
            "ranking": ranking,
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """The two ranks of every architecture that PPO trained, coloured by its number of weights."""
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
            raise FloppyError(
                f"PPO was to train {count} of {len(space)} architectures: give {LEAST} at least, of as large a space."
            )
        chosen = np.random.default_rng(self.seeds[0]).choice(len(space), size=count, replace=False)
        return [space[place] for place in sorted(chosen)]

    def _ppo(self, dataset: DistilledDataset, architecture: str, seed: int) -> Limited:
        """A run that is evaluated as often and by as many episodes as all others."""
        layers = parse_distribution(architecture).layers
        whole = limited(PPO, dataset.card.task, seed=seed, distribution=architecture, encoder_layers=layers)
        outer = whole.config.outer
        assert isinstance(outer, PPMO)
        steps = math.ceil(self.env_steps / (outer.learners * outer.environments * outer.horizon))
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
        return Limited(config)

    def _cloned(self, dataset: DistilledDataset, architecture: LearnerDistribution, seed: int) -> list[Row]:
        """All rates in one call; each has its share of the seconds."""
        started = time.monotonic()
        task, own = task_of(dataset), float(distilled_of(dataset).inner_rate)
        rates = np.repeat(np.array(self.rates) * own, self.learners)
        with open_arena(task) as arena:
            returns = returns_of(
                dataset,
                task,
                named_key(jax.random.key(seed), "search"),
                architecture,
                learners=rates.size,
                episodes=self.episodes,
                rates=jnp.asarray(rates, jnp.float32),
                arena=arena,
            )
        scores = learner_means(returns).reshape(len(self.rates), -1).mean(axis=1)
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

    def _spearman_at(self, rate: float, rows: list[Row]) -> float:
        """What it would be, if all architectures counted with this rate."""
        at_rate = [row for row in rows if row["way"] == PPO or row["rate"] == rate]
        both = [entry for entry in self._ranking(at_rate) if entry[PPO] is not None]
        return _statistic(scipy.stats.spearmanr, column(both, DISTILLED), column(both, PPO))


def read_space(path: Path) -> tuple[str, ...]:
    """Architectures from a file: one per line, but for empty lines and what follows a `#`, or a JSON list of texts.

    Raises:
      FloppyError: for a file that cannot be read; for a description that cannot be, that leaves width or depth to
        chance, or that is there twice, with its line or its place in the list.
    """
    try:
        text = path.read_text(encoding="utf-8")
        entries = json.loads(text) if path.suffix == ".json" else [line.split("#")[0] for line in text.splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): give a text file or a JSON list.") from error
    if not isinstance(entries, list):
        raise FloppyError(f"{path} holds {shown(entries)}: give a JSON list of learner distributions.")
    what = "entry" if path.suffix == ".json" else "line"
    places: dict[str, int] = {}
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, str):
            raise FloppyError(f"{path}, {what} {place} is {shown(entry)}: give a learner distribution as a text.")
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


def _statistic(measure: Measure, first: np.ndarray, second: np.ndarray) -> float:
    """The correlation; 0 where all architectures score alike in one of the lists, which then ranks nothing."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(measure(first, second).statistic)


def _agreement(measure: Measure, first: np.ndarray, second: np.ndarray) -> Row:
    """A correlation with its interval over architectures."""

    def statistic(first: np.ndarray, second: np.ndarray) -> float:
        return _statistic(measure, first, second)

    interval = percentile_interval((first, second), statistic, paired=True, vectorized=False)
    return {"value": statistic(first, second), "interval": list(interval)}


def _partial(first: np.ndarray, second: np.ndarray, given: np.ndarray) -> float:
    """Spearman's partial correlation of two lists; 0 where `given` alone ranks as one of them does."""
    pairs = ((first, second), (first, given), (second, given))
    both, of_first, of_second = (_statistic(scipy.stats.spearmanr, *pair) for pair in pairs)
    left = (1 - of_first**2) * (1 - of_second**2)
    return float((both - of_first * of_second) / math.sqrt(left)) if left > 1e-9 else 0.0


def _between_seeds(rows: list[Row]) -> float | None:
    """Mean Spearman correlation of the rankings by two seeds; None for a single seed."""
    rankings = [column(of_seed, "score") for of_seed in by(rows, "seed").values()]
    pairs = list(itertools.combinations(rankings, 2))
    return float(np.mean([_statistic(scipy.stats.spearmanr, *pair) for pair in pairs])) if pairs else None
