"""What a dataset teaches, and by which of its examples: each left out, each feature changed, and what policies then do.

All learners of a study start from the same weights and meet the same episodes, whatever is changed in the dataset.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from tyro.conf import Positional

from floppy.dataset import DistilledDataset
from floppy.errors import DivergedError, FloppyError, must_be_one_of
from floppy.evaluation.evaluate import evaluation_of
from floppy.evaluation.score import CLONES_DIVERGED, mean_interval
from floppy.fields import bounded, check_fields
from floppy.keys import named_key
from floppy.learner.distribution import parse_distribution
from floppy.learner.network import Learners, Network
from floppy.play import Arena, open_arena
from floppy.play.arena import statistics_of_batch
from floppy.play.normalise import RunningStatistics, mean_and_deviation, normalise
from floppy.studies.base import UNIT, Row, by, check_some, column, finite, interval_where_finite, scores_of, unit_of
from floppy.studies.explain_figure import draw_rows
from floppy.studies.runs import lesson_of_examples
from floppy.tasks.base import few_episodes, picture_of, score_unit
from floppy.teach.changes import Part, feature_name, parts_of, with_part_flipped, with_part_shifted, without_example
from floppy.teach.codec import Lesson, unpack
from floppy.teach.policies import MAX_LEARNERS, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES, FEATURES, MAP = "examples", "features", "map"
PARTS = (EXAMPLES, FEATURES, MAP)

WHOLE, WITHOUT, PART = "whole", "without", "part"
"""What cells are about: the dataset as it is, without an example, with a part of its observations changed; or `MAP`."""
SHIFT, FLIP = "shift", "flip"

SEEN = 256
"""Observations under random actions, which say what is usual in a task."""
MARGIN = 0.5
"""By how much a map reaches beyond them, in their range."""


@dataclasses.dataclass(frozen=True)
class Explain:
    """Shows which examples matter, to which features the score is sensitive, and what policies do where."""

    name: ClassVar[str] = "explain"
    dataset: Positional[Path]
    """The dataset's file."""
    parts: tuple[str, ...] = PARTS
    """Of the study: examples (the score without each of them), features (the score with each feature of the examples
    shifted or flipped), map (what cloned policies do over two features, and what each example adds to it)."""
    learners: int = bounded(16, least=2, most=MAX_LEARNERS)
    """Fresh learners, the same ones for every change."""
    episodes: int = bounded(0, least=0, most=MAX_LEARNERS)
    """Per learner; 0 stands for 4, or for 500 labelled images."""
    examples: int = bounded(16, least=1)
    """How many examples are left out in turn; of more, as many at equal distances."""
    shift: float = bounded(1.0, above=0)
    """By how much features are shifted, in units of a feature's root mean square over the examples."""
    features: tuple[int, ...] = bounded((), least=0)
    """The two features of the map, counted from 0; by default those on which the policies' outputs depend most."""
    grid: int = bounded(21, least=2, most=201)
    """Points of the map along each feature."""
    kernels: int = bounded(4, least=0, most=64)
    """How many examples the map shows the contributions of: those that change the outputs most."""
    distribution: str = ""
    """How learners are drawn; by default as the dataset's card says."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Of initial weights and episodes."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        object.__setattr__(self, "parts", tuple(part for each in self.parts for part in each.split(",")))
        check_some(self, "parts")
        for part in self.parts:
            if part not in PARTS:
                raise must_be_one_of("parts", part, PARTS)

    def cells(self) -> list[Row]:
        """The dataset as it is, without each of its examples, with each part of its observations changed; the map.

        Of a single example nothing is left without it, and images have no features to draw a map over.

        Raises:
          FloppyError: for a dataset that cannot be read, is merged, or holds a whole policy; for learners that do not
            fit it, and features that it does not have.
        """
        lesson = self._checked()
        count, shape = lesson.dataset.examples, lesson.dataset.observation_shape
        cells: list[Row] = []
        if EXAMPLES in self.parts and count > 1:
            cells += [{"what": WITHOUT, "which": index, "change": ""} for index in self._chosen(count)]
        if FEATURES in self.parts:
            cells += [
                {"what": PART, "which": part.name, "change": change}
                for part in self._parts(lesson)
                for change in (SHIFT, FLIP)
            ]
        if cells:
            cells.insert(0, {"what": WHOLE, "which": "", "change": ""})
        if MAP in self.parts and _has_map(shape):
            cells.append({"what": MAP, "which": "", "change": ""})
        if not cells:
            have = f"{' and '.join(self.parts)} {'has' if self.parts == (MAP,) else 'have'}"
            of = f"{count} example{'' if count == 1 else 's'} of shape {list(shape)}"
            raise FloppyError(f"{have} nothing to say of {of}: give other --parts.")
        return cells

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per learner with its mean return, -inf where all diverged; of the map a row per point.

        Raises:
          DivergedError: if no learner is left of which a map could be drawn.
        """
        lesson = self._checked()
        with open_arena(lesson.task()) as arena:
            if cell["what"] == MAP:
                return list(self._map_rows(lesson, arena))
            return self._score_rows(lesson, self._changed(lesson, cell), arena)

    def summary(self, rows: list[Row]) -> Row:
        """The score, and by how much it falls with every change, with 95% intervals over the learners."""
        kinds = by(rows, "what")
        found: Row = {}
        if WHOLE in kinds:
            whole = column(kinds[WHOLE], "score")
            interval = interval_where_finite(self._interval, whole)
            found["score"] = {"mean": finite(whole.mean()), "interval": interval, UNIT: unit_of(kinds[WHOLE])}
            if WITHOUT in kinds:
                examples = by(kinds[WITHOUT], "which")
                found[EXAMPLES] = [{"example": index} | self._fall(whole, of) for index, of in examples.items()]
            if PART in kinds:
                found[FEATURES] = [
                    {"feature": name} | {change: self._fall(whole, of) for change, of in by(of_part, "change").items()}
                    for name, of_part in by(kinds[PART], "which").items()
                ]
        if MAP in kinds:
            first = kinds[MAP][0]
            found[MAP] = {"features": [first["x_feature"], first["y_feature"]], "outputs": self._outputs(kinds[MAP])}
        return found

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Bars of how much the score falls, and the maps."""
        draw_rows(self.summary(rows), by(rows, "what").get(MAP, []), figure)

    def _checked(self) -> Lesson:
        """The dataset, of which everything can be measured."""
        lesson = lesson_of_examples(self.dataset)
        lesson.task()
        lesson.network(self._drawn())
        shape = lesson.dataset.observation_shape
        numbers = " ".join(map(str, self.features))
        if self.features and len(set(self.features)) != 2:
            raise FloppyError(f"features must be two different numbers, got {numbers}: give two, or leave them out.")
        if self.features and not (_has_map(shape) and max(self.features) < shape[0]):
            raise FloppyError(
                f"features must be numbers of an observation of shape {list(shape)}, got {numbers}: give others, or "
                "leave them out."
            )
        return lesson

    def _drawn(self) -> Learners | None:
        return parse_distribution(self.distribution) if self.distribution else None

    def _chosen(self, count: int) -> list[int]:
        """The examples that are left out."""
        return [int(index) for index in np.linspace(0, count - 1, min(self.examples, count)).round()]

    def _parts(self, lesson: Lesson) -> list[Part]:
        """Of an observation."""
        return parts_of(lesson.dataset.observation_shape, picture_of(lesson.task()).names)

    def _changed(self, lesson: Lesson, cell: Row) -> DistilledDataset:
        dataset = lesson.dataset
        if cell["what"] == WITHOUT:
            return without_example(dataset, cell["which"])
        if cell["what"] == WHOLE:
            return dataset
        part = next(each for each in self._parts(lesson) if each.name == cell["which"])
        flips = cell["change"] == FLIP
        return with_part_flipped(dataset, part) if flips else with_part_shifted(dataset, part, self.shift)

    def _score_rows(self, lesson: Lesson, changed: DistilledDataset, arena: Arena[Any]) -> list[Row]:
        task = lesson.task()
        evaluation = evaluation_of(
            lesson,
            task,
            network=lesson.network(self._drawn()),
            learners=self.learners,
            episodes=self.episodes or few_episodes(task),
        )
        scores = scores_of(evaluation.of_lesson(unpack(changed), self._key("scores"), arena=arena))
        unit = score_unit(task)
        return [{"learner": learner, "score": float(score), UNIT: unit} for learner, score in enumerate(scores)]

    def _map_rows(self, lesson: Lesson, arena: Arena[Any]) -> Iterator[Row]:
        """What all examples teach, then what each of some of them contributes to it."""
        dataset, actions = lesson.dataset, lesson.actions
        seen = np.asarray(arena.random_observations(lesson.task(), self._key("observations"), SEEN), np.float32)
        statistics = statistics_of_batch(jnp.asarray(seen)) if lesson.per_evaluation_stats else lesson.statistics
        outputs_of = functools.partial(self._outputs_of, statistics=statistics)
        first, second = self.features or _influential(functools.partial(outputs_of, dataset), seen)
        points = _grid(seen, first, second, self.grid)
        whole = outputs_of(dataset, points)
        picture = picture_of(lesson.task())
        place = dict(
            zip(
                ("x_feature", "y_feature"), (feature_name(each, picture.names) for each in (first, second)), strict=True
            )
        )
        averaged = _mean_of_finite(whole if actions.log_std_size else jax.nn.softmax(whole))
        values = np.asarray(actions.clip(jnp.asarray(averaged)) if actions.log_std_size else averaged, float)
        shown = int(values.std(axis=0).argmax()) if actions.log_std_size else None
        chosen = values.argmax(axis=1) if shown is None else np.full(len(values), shown)
        about = {"actions": 0 if actions.log_std_size else actions.size}
        points_of = functools.partial(_point_rows, points[:, [first, second]], picture.actions, place | about)
        yield from points_of("", chosen, values)
        contributions = self._contributions(lesson, outputs_of, points, whole)
        size = {index: float(np.abs(each).mean()) for index, each in contributions.items()}
        for index in sorted(sorted(size, key=lambda each: -size[each])[: self.kernels]):
            given = contributions[index]
            output = int(given.std(axis=0).argmax() if actions.log_std_size else dataset.targets[index].argmax())
            at = _in_units_of_task(dataset.observations[index], statistics)[[first, second]]
            yield from points_of(index, np.full(len(given), output), given, (float(at[0]), float(at[1])))

    def _contributions(self, lesson: Lesson, outputs_of: Any, points: np.ndarray, whole: Any) -> dict[int, np.ndarray]:
        """By example: what it changes in the mean outputs `[n, a]`; of logits in their distances from their mean.

        An example without which every learner diverges is left out.
        """
        dataset = lesson.dataset
        if dataset.examples == 1 or not self.kernels:
            return {}
        found = {}
        for index in self._chosen(dataset.examples):
            try:
                change = _mean_of_finite(whole - outputs_of(without_example(dataset, index), points))
            except DivergedError:
                continue
            found[index] = change if lesson.actions.log_std_size else change - change.mean(axis=1, keepdims=True)
        return found

    def _outputs_of(
        self, dataset: DistilledDataset, observations: np.ndarray, *, statistics: RunningStatistics | None
    ) -> jax.Array:
        """Outputs `[L, n, a]` of clones of a dataset, the same learners for all, for raw observations `[n, *obs]`."""
        policies = train(dataset, self._key("policies"), learners=self.learners, distribution=self._drawn())
        return _outputs(policies.network, policies.weights, statistics, jnp.asarray(observations))

    def _key(self, name: str) -> jax.Array:
        return named_key(jax.random.key(self.seed), f"explain {name}")

    def _fall(self, whole: np.ndarray, changed: list[Row]) -> Row:
        """By how much the score falls."""
        scores = column(changed, "score")
        interval = interval_where_finite(lambda *pair: self._interval(pair[0] - pair[1]), whole, scores)
        fall = None if interval is None else float((whole - scores).mean())
        return {"score": finite(scores.mean()), "fall": fall, "interval": interval}

    def _interval(self, values: np.ndarray) -> list[float]:
        return list(mean_interval(values, self.seed))

    def _outputs(self, rows: list[Row]) -> list[str]:
        """Actions that are the likeliest somewhere on the map; of continuous ones the one that varies most."""
        return sorted({str(row["output_name"]) for row in rows if row["example"] == ""})


def _has_map(shape: tuple[int, ...]) -> bool:
    """Whether an observation has two features: an image has pixels."""
    return len(shape) == 1 and shape[0] > 1


@functools.partial(jax.jit, static_argnums=0)
def _outputs(
    network: Network[Any], weights: Any, statistics: RunningStatistics | None, observations: jax.Array
) -> jax.Array:
    return jax.vmap(network.apply, (0, None))(weights, normalise(statistics, observations))


def _mean_of_finite(outputs: jax.Array) -> np.ndarray:
    """The mean `[n, a]` of outputs `[L, n, a]` over the learners that have not diverged.

    Raises:
      DivergedError: if there is none.
    """
    of_learners = np.asarray(outputs, float)
    finite = of_learners[np.isfinite(of_learners).all(axis=(1, 2))]
    if not len(finite):
        raise DivergedError(CLONES_DIVERGED)
    mean: np.ndarray = finite.mean(axis=0)
    return mean


def _influential(outputs_of: Any, seen: np.ndarray) -> tuple[int, int]:
    """The two features whose values, exchanged between observations `[n, f]`, change the outputs most, in order.

    Permutation importance (Breiman, 2001, Random Forests), with the error against what was before in place of labels.
    """
    usual = outputs_of(seen)
    importance = []
    for feature in range(seen.shape[1]):
        exchanged = seen.copy()
        exchanged[:, feature] = np.roll(seen[:, feature], 1)
        importance.append(float(_mean_of_finite(jnp.square(outputs_of(exchanged) - usual)).mean()))
    first, second = sorted(np.argsort(importance, kind="stable")[-2:].tolist())
    return first, second


def _grid(seen: np.ndarray, first: int, second: int, size: int) -> np.ndarray:
    """Observations `[size², f]`: two features over the usual range and beyond, the others as they are on average."""
    points = np.tile(seen.mean(axis=0), (size * size, 1))
    spans = []
    for feature in (first, second):
        low, high = seen[:, feature].min(), seen[:, feature].max()
        margin = MARGIN * (high - low) or 1.0
        spans.append(np.linspace(low - margin, high + margin, size))
    points[:, first], points[:, second] = (each.ravel() for each in np.meshgrid(*spans))
    return points.astype(np.float32)


def _in_units_of_task(observation: np.ndarray, statistics: RunningStatistics | None) -> np.ndarray:
    """An example's observation as the task would give it."""
    if statistics is None:
        return observation
    mean, deviation = mean_and_deviation(statistics)
    return observation * deviation + mean


def _point_rows(
    points: np.ndarray,
    names: Sequence[str],
    more: Row,
    example: Any,
    outputs: np.ndarray,
    values: np.ndarray,
    at: tuple[float, float] | None = None,
) -> Iterator[Row]:
    """Rows of a map: the value `[n, a]` of the chosen output `[n]` at every point; `at` is where the example lies."""
    place = {} if at is None else {"example_x": at[0], "example_y": at[1]}
    for (x, y), output, value in zip(points, outputs.tolist(), values, strict=True):
        name = feature_name(output, names, "action")
        here = {"example": example, "x": float(x), "y": float(y), "output": output, "output_name": name}
        yield here | {"value": float(value[output])} | more | place
