"""Properties that hold for all values, tried by hypothesis: the codec, merging, distributions' texts, normalisation."""

import dataclasses
import math
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from probes import hand_dataset

from floppy.cloning import CLONINGS, LOSSES
from floppy.cloning.merged import Block
from floppy.dataset.card import Card
from floppy.fields import BOUNDS, decode, encode
from floppy.learner.activations import ACTIVATIONS
from floppy.learner.distribution import describe_distribution, learners_of, parse_distribution
from floppy.learner.initialisers import INITIALISERS
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution, Weights
from floppy.outer import OUTER_LOOPS
from floppy.play.normalise import CLIP, init_statistics, normalise, update_statistics
from floppy.spaces import Discrete
from floppy.teach.merge import merge

quick = settings(deadline=None, max_examples=50)
update = jax.jit(update_statistics)
numbers = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)


@st.composite
def ranges(draw: st.DrawFn, least: int, most: int) -> tuple[int, int]:
    first = draw(st.integers(least, most))
    return first, draw(st.integers(first, most))


@st.composite
def distributions(draw: st.DrawFn) -> LearnerDistribution:
    depth = draw(ranges(0, 9))
    return LearnerDistribution(
        width=draw(ranges(1, 500)),
        depth=(1, depth[1]) if depth[0] == 0 < depth[1] else depth,
        initialiser=tuple(draw(st.lists(st.sampled_from(sorted(INITIALISERS)), min_size=1, max_size=3, unique=True))),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        network=draw(st.sampled_from(["mlp", "minatar-cnn", "nature-cnn"])),
        init_seed=draw(st.integers(-1, 2**32 - 1)),
    )


@given(distributions())
@quick
def test_a_distribution_is_read_from_its_own_text(distribution: LearnerDistribution) -> None:
    assert parse_distribution(describe_distribution(distribution)) == distribution


@given(distributions())
@quick
def test_a_distribution_is_read_from_its_own_entry(distribution: LearnerDistribution) -> None:
    card = hand_dataset({"learners": [distribution.as_entry()]}).card
    assert learners_of(Card.from_json(card.to_json()).learners[0]) == distribution


@st.composite
def parts(draw: st.DrawFn) -> Any:
    """A cloning or an outer loop in which some numbers are other than by default, within their bounds."""
    kind = draw(st.sampled_from([*CLONINGS.values(), *OUTER_LOOPS.values()]))
    changes = {}
    for field in dataclasses.fields(kind):
        bounds = field.metadata.get(BOUNDS)
        if bounds is None or not draw(st.booleans()):
            continue
        least = max(bounds["least"], 0.01 if bounds["above"] > -math.inf else bounds["least"])
        most = min(bounds["most"], 1000.0)
        if field.type is int:
            changes[field.name] = 2 * draw(st.integers(math.ceil(least / 2), int(most) // 2)) or 2
        elif field.type is float:
            changes[field.name] = draw(st.floats(least, most))
    return kind(**changes)


@given(parts())
@quick
def test_a_part_of_a_configuration_is_read_from_its_own_entry(part: Any) -> None:
    entry = encode(part)
    assert entry.pop("kind") == type(part).__name__
    assert decode(type(part), entry, "part") == part


@pytest.mark.slow
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)), min_size=2, max_size=4),
    rates=st.lists(st.floats(0.01, 100.0), min_size=4, max_size=4),
)
@quick
def test_merged_blocks_tile_the_joint_dataset(sizes: list[tuple[int, int, int]], rates: list[float]) -> None:
    datasets = [
        hand_dataset(
            {"task": f"ndcartpole/{number + 1}", "actions": {"kind": "discrete", "size": a}},
            observations=np.full((k, o), number + 1.0),
            targets=np.full((k, a), -(number + 1.0)),
            inner_rate=rates[number],
        )
        for number, (k, o, a) in enumerate(sizes)
    ]
    with _without_task_checks():
        merged = merge(datasets)
    assert merged.observations.shape == tuple(np.sum([size[:2] for size in sizes], axis=0))
    seen = np.zeros_like(merged.observations)
    for number, block in enumerate(map(Block.from_entry, merged.card.blocks)):
        own, targets, _ = block.examples(merged.observations, merged.targets, np.zeros(merged.targets.shape[1]))
        np.testing.assert_array_equal(own, datasets[number].observations)
        np.testing.assert_array_equal(targets, datasets[number].targets)
        rows, columns = (slice(first, first + count) for first, count in (block.rows, block.observations))
        seen[rows, columns] += 1
        assert math.isclose(block.weight * float(merged.inner_rate), rates[number], rel_tol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_array_equal(merged.observations != 0, seen == 1)
    assert seen.max() == 1


def _without_task_checks() -> Any:
    """The sizes here are of no task that is known."""
    import contextlib
    from unittest import mock

    from floppy.tasks.ndcartpole import NDCartPole
    from floppy.teach.codec import Lesson

    @contextlib.contextmanager
    def patched() -> Any:
        with mock.patch.object(Lesson, "task", lambda self, name="": NDCartPole(1)):
            yield

    return patched()


@pytest.mark.slow
@given(
    first=st.tuples(st.integers(0, 3), st.integers(1, 3)),
    given_=st.tuples(st.integers(0, 2), st.integers(1, 3)),
    data=st.data(),
)
@quick
def test_a_cut_policy_gives_the_joint_one_its_own_outputs(
    first: tuple[int, int], given_: tuple[int, int], data: st.DataObject
) -> None:
    """On observations that are zero outside of the block."""
    inputs, outputs, width = 7, 6, 3
    kernels = [data.draw(arrays(np.float32, shape, elements=numbers)) for shape in ((inputs, width), (width, outputs))]
    layers = tuple({"kernel": kernel / 1e3, "bias": np.zeros(kernel.shape[1], np.float32)} for kernel in kernels)
    joint = LayeredNetwork(LearnerDistribution(width=(width, width), depth=(1, 1)), (inputs,), Discrete(outputs))
    weights: Any = Weights(layers, (np.zeros(()),) * 2, np.zeros(0))  # type: ignore[arg-type]
    block = Block("any/task", (0, 1), first, given_, 1.0)
    own = data.draw(arrays(np.float32, (2, first[1]), elements=st.floats(-3, 3, width=32)))
    whole = np.zeros((2, inputs), np.float32)
    whole[:, first[0] : sum(first)] = own
    wanted = joint.apply(weights, jnp.asarray(whole))[:, given_[0] : sum(given_)]
    got = block.network(joint).apply(block.cut(weights), jnp.asarray(own))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


batches = st.integers(1, 6).flatmap(lambda n: arrays(np.float32, (n, 3), elements=numbers))


@pytest.mark.slow
@given(st.lists(batches, min_size=1, max_size=4))
@quick
def test_statistics_do_not_depend_on_how_observations_come(parts_: list[np.ndarray]) -> None:
    whole = np.concatenate(parts_)
    statistics = init_statistics((3,))
    for part in parts_:
        statistics = update(statistics, jnp.asarray(part))
    np.testing.assert_allclose(statistics.mean, whole.mean(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(statistics.var, whole.var(axis=0, dtype=np.float64), rtol=1e-3, atol=0.5)
    assert float(statistics.seen) == len(whole)


@pytest.mark.slow
@given(batches, st.floats(0.125, 8.0, width=32), st.floats(-10.0, 10.0, width=32))
@quick
def test_normalised_observations_have_no_units(batch: np.ndarray, scale: float, shift: float) -> None:
    """Observations in other units, with their own statistics, are seen alike, within the clip."""
    batch = np.round(batch)
    known = update_statistics(init_statistics((3,)), jnp.asarray(batch))
    other = update_statistics(init_statistics((3,)), jnp.asarray(scale * batch + shift))
    spread = np.asarray(known.var) > 1.0  # what hardly differs is scaled by rounding errors
    seen = np.asarray(normalise(known, jnp.asarray(batch)))
    again = np.asarray(normalise(other, jnp.asarray(scale * batch + shift)))
    np.testing.assert_allclose(again[:, spread], seen[:, spread], atol=0.02)
    assert np.abs(seen).max() <= CLIP


@pytest.mark.slow
@given(
    name=st.sampled_from(sorted(LOSSES)),
    rows=st.integers(1, 4),
    data=st.data(),
)
@quick
def test_losses_are_least_where_the_output_is_the_target(name: str, rows: int, data: st.DataObject) -> None:
    shape, loss = (rows, 3), LOSSES[name]
    targets, off = (data.draw(arrays(np.float32, shape, elements=st.floats(-2, 2, width=32))) for _ in range(2))
    output = jnp.asarray(targets)
    if loss.takes_probabilities:
        targets = np.exp(targets) / np.exp(targets).sum(axis=1, keepdims=True)
    log_std = jnp.zeros(0 if loss.takes_probabilities else 3)
    function = jax.jit(loss.function)
    at = function(output, log_std, jnp.asarray(targets), log_std)
    away = function(output + off, log_std, jnp.asarray(targets), log_std)
    assert float(away) >= float(at) - 1e-5
