"""Whether architectures rank on a distilled dataset as they do when PPO trains them on the task.

Neither paper has this experiment. A dataset is of use to architecture search if it tells in
seconds which networks do well in a training that takes far longer, better than their size does, or than what a user
would do without a dataset: a short training of each.
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
from floppy.fields import bounded, check_fields
from floppy.files import MEBIBYTE, read_file
from floppy.keys import named_key
from floppy.learner.distribution import parse_distribution
from floppy.learner.network import Learners, Network
from floppy.play import open_arena
from floppy.recipes import steps_of_baseline
from floppy.studies.base import Row, by, check_some, column, finite, scores_of
from floppy.studies.equal_size import MAX_WEIGHTS, equal_size_space
from floppy.studies.rankings import (
    KENDALL,
    SPEARMAN,
    agreement,
    best,
    between,
    correlation,
    difference,
    mean_correlation,
    partial,
    reliability,
)
from floppy.studies.runs import BudgetedRun, configure_method, lesson_of_examples, try_run
from floppy.teach.codec import Lesson, unpack
from floppy.teach.policies import MAX_LEARNERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DISTILLED, SHORT, PPO = "distilled", "short", "ppo"
"""The ways to score an architecture: policies cloned from the dataset, a short run of PPO, a long one."""

WEIGHTS = "weights"
"""The number of weights, which ranks architectures at no cost."""

RANKS = {
    DISTILLED: "rank of fresh policies cloned from the dataset",
    SHORT: "rank of PPO's policy after a short training",
    PPO: "rank of PPO's policy, by mean return along its run",
}
"""What figures call the ranks."""

SHORT_SEEDS = 2**31
"""How far the seed of a short run lies above that of the long one, modulo 2^32."""

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


@dataclasses.dataclass(frozen=True)
class Search:
    """Ranks architectures by policies cloned from a dataset and by PPO on its task, and compares the rankings."""

    name: ClassVar[str] = "search"
    dataset: Positional[Path]
    """The dataset's file: distilled for one architecture, or for a mixture of them (distill --distribution A,B)."""
    space: Path | None = None
    """File of the architectures, each a learner distribution of one width and depth: one per line, or a JSON list; by
    default 32 that differ in width, depth, activation and initialiser."""
    weights: int = bounded(0, least=0, most=MAX_WEIGHTS)
    """Ranks designs with this number of weights, each within 5% of it, in place of a space; 0: the space."""
    architectures: int = bounded(36, least=LEAST)
    """How many designs --weights ranks: drawn from those that differ in depth, taper, activation, norm, residual
    connections and initialiser, the same ones in every study of this number."""
    trained: int = bounded(0, least=0)
    """How many of them, drawn at random, PPO trains too; 0 for all."""
    env_steps: int = bounded(200_000, least=1, most=MAX_COUNT)
    """Of each run of PPO, rounded up to whole outer steps; its rates are annealed over them."""
    short: float = bounded(0.1, least=0, most=1)
    """Share of env_steps of one more run of PPO per architecture and seed, annealed over these and scored at its end
    alone: what ranks architectures without a dataset; 0 leaves it out. Its seeds are those below plus 2^31."""
    seeds: tuple[int, ...] = bounded((0, 1), least=0, most=2**32 - 1)
    """Of each architecture, every way."""
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
        if self.space is not None and self.weights:
            raise FloppyError(f"space ({self.space}) and weights ({self.weights}) are two spaces: give one of them.")
        if self.short and set(self._seeds(SHORT)) & set(self.seeds):
            raise FloppyError(
                f"seeds must not lie {SHORT_SEEDS} apart, as those of short runs do: give others, or short 0."
            )

    def cells(self) -> list[Row]:
        """A way, an architecture and a seed: first all by the dataset, then those that PPO trains, briefly and in full.

        Raises:
          FloppyError: for a dataset or a file of architectures that cannot be used.
        """
        lesson = lesson_of_examples(self.dataset)
        lesson.task()
        space = self._space(lesson)
        for architecture in space:
            count_weights(lesson.network(parse_distribution(architecture)))  # refuses a network that does not fit
            self._ppo(lesson.dataset, architecture, self.seeds[0], PPO)
        trained = self._sample(space)
        return [
            {"way": way, "architecture": architecture, "seed": seed}
            for way, architectures in ((DISTILLED, space), (SHORT, trained if self.short else ()), (PPO, trained))
            for architecture in architectures
            for seed in self._seeds(way)
        ]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per rate, or one of PPO.

        `score` is a mean return: of the policies cloned at that rate, or of all evaluations along the run of PPO,
        which tells slow from quick learners where `final`, its last evaluation, no longer does; a short run has this
        one alone. `seconds` is wall-clock time with compilation. What diverged in every evaluation scores -inf, and is
        the last of its ranking.
        """
        dataset = load(self.dataset)
        architecture = parse_distribution(cell["architecture"])
        if cell["way"] == DISTILLED:
            rows = self._cloned(dataset, architecture, cell["seed"])
        else:
            ended = try_run(self._ppo(dataset, **cell), folder)
            scores = [point.score for point in ended.points] or [-math.inf]
            seconds = ended.totals["seconds"] + ended.compilation
            rows = [{"score": float(np.mean(scores)), "final": scores[-1], "seconds": seconds}]
        weights = count_weights(unpack(dataset).network(architecture))
        return [{"weights": weights} | row for row in rows]

    def summary(self, rows: list[Row]) -> Row:
        """How far cheap rankings agree with PPO's, what they took, and how far noise lets any ranking agree.

        Correlations are over the architectures that PPO trained, with 95% percentile-bootstrap intervals over them; one
        is null where all scores of one of the lists are equal, which then ranks nothing. `predictors` are the dataset,
        the number of weights, which is what ranking by size alone has, and the short training, where there is one;
        their seconds are those of the architectures that PPO trained. The correlation given the number of weights (a
        partial one) is what a predictor knows beyond it. `by_seeds` has them with ever more seeds: the mean
        correlation of so many, and the seconds of the first ones, which compile. `spearman_between_seeds` is of
        single seeds, `reliability` of the mean over all of them: a ranking that knew PPO's mean over endlessly many
        seeds would correlate with the measured one by about the square root of PPO's.
        """
        ranking = self._ranking(rows)
        both = _compared(ranking)
        found = _predictors(both)
        rankings = {way: _by_seed(self._counting(rows, way)) for way in _ways(rows)}
        return {
            "architectures": len(ranking),
            "trained": len(both),
            "top": _top(both),
            "top_recall_by_chance": _top(both) / len(both),
            "spearman_with_final": agreement(SPEARMAN, column(both, DISTILLED), column(both, "final")),
            "spearman_by_rate": {str(rate): self._spearman_at(rate, rows) for rate in self.rates},
            "spearman_between_seeds": {way: between(each) for way, each in rankings.items()},
            "reliability": {way: reliability(each) for way, each in rankings.items()},
            "seconds": {way: float(column(of_way, "seconds").sum()) for way, of_way in by(rows, "way").items()},
            **({"spearman_distilled_less_short": _difference(both)} if SHORT in found else {}),
            "predictors": [_predictor(name, both) | {"seconds": _seconds(rows, name, both)} for name in found],
            "by_seeds": [entry for way in found if way != WEIGHTS for entry in self._by_seeds(rows, way, both)],
            "ranking": ranking,
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """The ranks of every architecture that PPO trained by each cheaper way, coloured by its number of weights."""
        import scipy.stats

        both = _compared(self._ranking(rows))
        ways = [name for name in _predictors(both) if name != WEIGHTS]
        figure.set_size_inches(2 + 4 * len(ways), 4)
        panels = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0]
        ranks = {way: scipy.stats.rankdata(-column(both, way)) for way in (*ways, PPO)}
        for axes, way in zip(panels, ways, strict=True):
            points = axes.scatter(ranks[way], ranks[PPO], c=column(both, WEIGHTS), norm="log", cmap="viridis")
            axes.axline((1, 1), slope=1, color="black", linewidth=0.8, linestyle=":")
            axes.set_xlabel(RANKS[way])
        panels[0].set_ylabel(RANKS[PPO])
        figure.colorbar(points, ax=panels, label="weights of the network")

    def _space(self, lesson: Lesson) -> tuple[str, ...]:
        """The architectures that are ranked."""
        if self.space is not None:
            return read_space(self.space)
        if not self.weights:
            return SPACE
        return equal_size_space(
            lambda architecture: count_weights(lesson.network(parse_distribution(architecture))),
            self.weights,
            self.architectures,
        )

    def _seeds(self, way: str) -> tuple[int, ...]:
        """Those of a way; a short run must share no noise with the long ones that it is to foretell."""
        return tuple((seed + SHORT_SEEDS) % 2**32 for seed in self.seeds) if way == SHORT else self.seeds

    def _sample(self, space: tuple[str, ...]) -> list[str]:
        """Those that PPO trains, in the order of the space."""
        count = self.trained or len(space)
        if not LEAST <= count <= len(space):
            raise FloppyError(f"trained must be {LEAST} to the space's {len(space)} architectures, got {count}.")
        chosen = np.random.default_rng(self.seeds[0]).choice(len(space), size=count, replace=False)
        return [space[place] for place in sorted(chosen)]

    def _ppo(self, dataset: DistilledDataset, architecture: str, seed: int, way: str) -> BudgetedRun:
        """A run, long or short, whose evaluations have as many episodes as all others."""
        layers = parse_distribution(architecture).layers
        task = unpack(dataset).task().task_id  # not the card's word for it: that may name a path
        whole = configure_method(PPO, task, seed=seed, distribution=architecture, encoder_layers=layers)
        wanted, evaluations = (self.env_steps, EVALUATIONS) if way == PPO else (round(self.short * self.env_steps), 1)
        steps = max(1, math.ceil(wanted / steps_of_baseline(whole.config)))
        # One policy plays all episodes; that the last evaluation is like the others saves a compilation.
        episodes = self.learners * self.episodes
        config = dataclasses.replace(
            whole.config,
            outer_steps=steps,
            evaluate_every=math.ceil(steps / evaluations),
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
        if way != DISTILLED:
            return of_way
        by_rate = (by(of_architecture, "rate").values() for of_architecture in by(of_way, "architecture").values())
        return [row for rates in by_rate for row in max(rates, key=lambda at: column(at, "score").mean())]

    def _ranking(self, rows: list[Row]) -> list[Row]:
        """An entry per architecture, the best by the dataset first; None where PPO did not train it."""
        means = {way: self._means(rows, way) for way in _ways(rows)} | {"final": self._means(rows, PPO, "final")}
        weights = {row["architecture"]: row[WEIGHTS] for row in rows}
        entries = [
            {"architecture": architecture, WEIGHTS: weights[architecture]}
            | {name: scores.get(architecture) for name, scores in means.items()}
            for architecture in means[DISTILLED]
        ]
        return sorted(entries, key=lambda entry: -entry[DISTILLED])

    def _means(self, rows: list[Row], way: str, name: str = "score") -> dict[str, float]:
        """The mean score of every architecture over its seeds."""
        counting = by(self._counting(rows, way), "architecture")
        return {architecture: float(column(of_one, name).mean()) for architecture, of_one in counting.items()}

    def _by_seeds(self, rows: list[Row], way: str, both: list[Row]) -> list[Row]:
        """An entry for every number of seeds of a way: what they took, and how they agree with all of PPO's."""
        ppo = column(both, PPO)
        of_seed = list(by(_rows_of(rows, way, both), "seed").values())
        entries = []
        for count in range(1, len(of_seed) + 1):
            parts = [[of_seed[(first + each) % len(of_seed)] for each in range(count)] for first in range(len(of_seed))]
            means = [self._means(list(itertools.chain(*part)), way) for part in parts]
            rankings = [np.array([scores[entry["architecture"]] for entry in both]) for scores in means]
            entries.append(
                {
                    "predictor": way,
                    "seeds": count,
                    "seconds": float(sum(column(each, "seconds").sum() for each in of_seed[:count])),
                    "spearman": mean_correlation([(scores, ppo) for scores in rankings]),
                }
            )
        return entries

    def _spearman_at(self, rate: float, rows: list[Row]) -> float | None:
        """What it would be, if all architectures counted with this rate."""
        at_rate = [row for row in rows if row["way"] != DISTILLED or row["rate"] == rate]
        both = _compared(self._ranking(at_rate))
        return finite(correlation(SPEARMAN, column(both, DISTILLED), column(both, PPO)))


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


def _ways(rows: list[Row]) -> tuple[str, ...]:
    """The ways of a table; those of before there were short runs have none."""
    return (DISTILLED, SHORT, PPO) if any(row["way"] == SHORT for row in rows) else (DISTILLED, PPO)


def _rows_of(rows: list[Row], way: str, entries: list[Row]) -> list[Row]:
    """The rows of a way for the architectures of some entries."""
    wanted = {entry["architecture"] for entry in entries}
    return [row for row in rows if row["way"] == way and row["architecture"] in wanted]


def _seconds(rows: list[Row], way: str, entries: list[Row]) -> float:
    """What a way took for the architectures of some entries; nothing is measured to count weights."""
    return float(column(_rows_of(rows, way, entries), "seconds").sum())


def _by_seed(rows: list[Row]) -> list[np.ndarray]:
    """The scores of the rows of each seed."""
    return [column(of_seed, "score") for of_seed in by(rows, "seed").values()]


def _compared(ranking: list[Row]) -> list[Row]:
    """The entries that PPO ranks too, by name: neither ranking decides which of equals are at the top."""
    return sorted((entry for entry in ranking if entry[PPO] is not None), key=lambda entry: entry["architecture"])


def _predictors(both: list[Row]) -> list[str]:
    """What ranks all of them: the short training does not where it was left out, or has not ended."""
    return [name for name in (DISTILLED, WEIGHTS, SHORT) if all(entry.get(name) is not None for entry in both)]


def _top(both: list[Row]) -> int:
    return min(TOP, len(both))


def _predictor(name: str, both: list[Row]) -> Row:
    """How a column of a ranking agrees with PPO's."""
    scores, ppo, weights = (column(both, each) for each in (name, PPO, WEIGHTS))
    given = {} if name == WEIGHTS else {"spearman_given_weights": partial(scores, ppo, weights)}
    return {
        "predictor": name,
        "spearman": agreement(SPEARMAN, scores, ppo),
        "kendall": agreement(KENDALL, scores, ppo),
        **given,
        "top_recall": len(set(best(scores, _top(both))) & set(best(ppo, _top(both)))) / _top(both),
    }


def _difference(both: list[Row]) -> Row:
    """Above 0 where the dataset ranks more like PPO than the short training does."""
    return difference(*(column(both, way) for way in (DISTILLED, SHORT, PPO)))
