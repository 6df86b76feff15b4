"""Trained policies at work: as pytrees, acting in a loop of one's own, and in a file."""

import copy
import dataclasses
import inspect
import json
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from probes import SMALL, hand_dataset

import floppy
from floppy.dataset.file import POLICIES_KEY, origin
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.learner.user_networks import NETWORKS
from floppy.play.normalise import normalise
from floppy.teach.codec import unpack
from floppy.teach.policies import _clone_many, _key_of
from floppy.teach.policy_file import is_policy_file, load_policies, save_policies

SPECIFICATION = Path(__file__).parents[1] / "docs/policy-file.md"
BOX = {"kind": "continuous", "size": 2, "low": [-0.1, -2.0], "high": [0.1, 2.0]}
STATISTICS = {"obs_mean": np.array([1.0, 0.0, -1.0, 2.0]), "obs_var": np.array([4.0, 1.0, 0.25, 1.0])}
OBSERVATIONS = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)
"""Of three policies, five each."""
RANDOM_DEPTH = LearnerDistribution(width=(3, 8), depth=(1, 3), initialiser=("xavier1",))


def dataset_of(card: dict[str, Any] | None = None, **tensors: Any) -> floppy.DistilledDataset:
    return hand_dataset({"learners": [dataclasses.asdict(SMALL)]} | (card or {}), **tensors)


@pytest.fixture(scope="module")
def discrete() -> floppy.Policies:
    return floppy.train(dataset_of({"normaliser": "frozen"}, **STATISTICS), 0, learners=3)


@pytest.fixture(scope="module")
def continuous() -> floppy.Policies:
    return floppy.train(dataset_of({"actions": BOX}, log_std=[-1.0, 0.5], inner_rate=0.2), 0, learners=3)


@pytest.fixture(scope="module")
def of_random_depth() -> floppy.Policies:
    policies = floppy.train(dataset_of(), 0, learners=8, distribution=RANDOM_DEPTH)
    assert len(set(np.sum(policies.weights.skip, axis=0))) == 3
    return policies


@pytest.fixture(params=["discrete", "continuous", "of_random_depth"])
def policies(request: pytest.FixtureRequest) -> floppy.Policies:
    found: floppy.Policies = request.getfixturevalue(request.param)
    return found


def same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def refusal(attempt: Callable[[], Any]) -> str:
    """The sentence with which something is refused."""
    with pytest.raises(FloppyError) as caught:
        attempt()
    message = str(caught.value)
    assert "\n" not in message
    assert message[-1] in ".?"
    return message


# --- Training ---


@pytest.mark.slow
def test_a_seed_is_a_key_and_a_distribution_a_text() -> None:
    dataset = dataset_of()
    by_key = floppy.train(dataset, jax.random.key(7), learners=2, distribution=SMALL)
    by_seed = floppy.train(dataset, np.int64(7), learners=2, distribution="width=16:depth=1:initialiser=xavier")
    same(by_key, by_seed)
    assert (by_key.origin.seed, by_seed.origin.seed) == (None, 7)
    assert by_seed.origin.dataset == origin(dataset)
    for wrong in (-1, 2**32, 1.5, True, "0", None):
        assert "key must be" in refusal(lambda wrong=wrong: floppy.train(dataset, wrong))


@pytest.mark.slow
def test_a_learner_is_what_its_key_makes_of_it_however_many_there_are() -> None:
    key, dataset = jax.random.key(3), dataset_of()
    before = _clone_many._cache_size()
    found = {count: floppy.train(dataset, key, learners=count) for count in (5, 6, 8)}
    assert _clone_many._cache_size() - before <= 1, "compiled anew for another number of learners"
    lesson = unpack(dataset)
    for count in (5, 6):
        assert len(found[count]) == count
        for index, own in enumerate(jax.random.split(key, count)):
            alone = _clone_many(lesson.cloning, lesson.network(), ((),), lesson.distilled, own[None])
            jax.tree.map(
                lambda leaf, wanted, i=index: np.testing.assert_allclose(leaf[i], wanted[0], rtol=1e-5, atol=1e-6),
                found[count].weights,
                alone,
            )
    legacy = floppy.train(dataset_of(), jax.random.PRNGKey(3), learners=5)
    same(legacy, found[5])
    traced = jax.jit(lambda key: floppy.train(dataset_of(), key, learners=5).weights)(key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), traced, found[5].weights)


# --- A pytree ---


@pytest.mark.thorough(all_but=["discrete", "continuous"])
@pytest.mark.slow
def test_policies_pass_through_the_transformations(policies: floppy.Policies) -> None:
    seen = jnp.ones((len(policies), 3, 4))
    wanted = floppy.policy_outputs(policies, seen)
    np.testing.assert_allclose(jax.jit(floppy.policy_outputs)(policies, seen), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(lambda o: floppy.policy_outputs(policies, o))(seen), wanted, rtol=1e-5, atol=1e-6
    )
    same(jax.lax.scan(lambda p, _: (p, 0), policies, None, length=2)[0], policies)
    same(jax.device_put(policies), policies)
    fewer = jax.tree.map(lambda leaf: leaf[:1] if leaf.shape[:1] == (len(policies),) else leaf, policies)
    assert len(fewer) == 1
    assert len(jax.tree.leaves(policies)) == len(jax.tree.leaves((policies.weights, policies.statistics)))
    # What a transformation gives back may be anything: it does not claim to come from the dataset.
    assert policies.origin is not None
    assert jax.tree.map(jnp.zeros_like, policies).origin is None


def test_one_policy_and_some(policies: floppy.Policies) -> None:
    assert [type(one) for one in policies] == [floppy.Policy] * len(policies)
    last = policies[-1]
    same(last.weights, jax.tree.map(lambda leaf: leaf[-1], policies.weights))
    same(policies[1:].weights, jax.tree.map(lambda leaf: leaf[1:], policies.weights))
    assert policies.origin is not None and policies.origin.seed == 0
    assert policies[:1].origin == policies.origin
    # The seed gives the first policies: of others it would name the wrong ones.
    assert policies[1:].origin == dataclasses.replace(policies.origin, seed=None)
    assert policies[[0, 1]].origin == policies.origin
    for index in ([2, 0], np.array([2, 0]), jnp.array([2, 0])):
        same(policies[index].weights, jax.tree.map(lambda leaf: leaf[np.array([2, 0])], policies.weights))
        assert policies[index].origin == dataclasses.replace(policies.origin, seed=None)
    same(policies[np.arange(len(policies)) > 0].weights, policies[1:].weights)
    for index in (len(policies), -len(policies) - 1):
        with pytest.raises(IndexError):
            policies[index]
    assert "LearnerDistribution" not in repr(policies) + repr(last)
    assert repr(policies).startswith(f"<{len(policies)} Policies of ndcartpole/1, width=")
    assert repr(last).startswith("<Policy of ndcartpole/1, width=")
    assert repr(jax.tree.map(lambda _: 0, policies)).startswith("<Policies of ")


WRONG_INDICES = ("a", True, None, 1.0, [0, 3], [0.0], [[0, 1]], (0, 1), [True, False], slice("a"), {0}, np.ones((3, 3)))


@pytest.mark.parametrize("wrong", WRONG_INDICES)
def test_an_index_that_chooses_no_policies_is_refused(discrete: floppy.Policies, wrong: Any) -> None:
    assert "a list of numbers below 3 or 3 truth values, got " in refusal(lambda: discrete[wrong])


def test_a_traced_number_chooses_a_policy(policies: floppy.Policies) -> None:
    observation = jnp.asarray(OBSERVATIONS[0, 0])
    act = jax.jit(lambda policies, number: policies[number].act(observation))
    for number in (1, -1):
        np.testing.assert_allclose(act(policies, number), policies[number].act(observation), rtol=1e-5)
    assert "truth values" in refusal(lambda: act(policies, jnp.arange(2)))


def test_mapped_policies_act_as_one_each(policies: floppy.Policies) -> None:
    """Statistics, of which there is one for all, are not mapped."""
    observation = jnp.asarray(OBSERVATIONS[0])
    axes = dataclasses.replace(jax.tree.map(lambda _: 0, policies), statistics=None)
    actions = jax.vmap(lambda one: one.act(observation), in_axes=(axes,))(policies)
    wanted = jnp.stack([one.act(observation) for one in policies])
    np.testing.assert_allclose(actions, wanted, rtol=1e-5, atol=1e-6)


# --- Acting ---


@pytest.mark.thorough(all_but=["discrete", "continuous"])
@pytest.mark.slow
def test_the_most_likely_actions_are_those_of_the_outputs(policies: floppy.Policies) -> None:
    observations = np.tile(OBSERVATIONS[:1], (len(policies), 1, 1))
    outputs = floppy.policy_outputs(policies, jnp.asarray(observations))
    if policies.network.actions.kind == "discrete":
        wanted = np.argmax(outputs, axis=-1)
    else:
        wanted = np.clip(outputs, BOX["low"], BOX["high"])
        assert (wanted != np.asarray(outputs)).any()
    for given in (observations, jnp.asarray(observations)):
        actions = policies.act(given)
        assert isinstance(actions, type(given))
        np.testing.assert_allclose(actions, wanted, rtol=1e-5, atol=1e-6)
        one = policies[1].act(given[1])
        assert isinstance(one, type(given))
        np.testing.assert_allclose(one, wanted[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(policies.act(observations[:, 2]), wanted[:, 2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(policies.act(observations[0, 2]), wanted[:, 2], rtol=1e-5, atol=1e-6)
    by_list = policies[1].act(observations[1, 2].tolist())
    np.testing.assert_allclose(by_list, wanted[1, 2], rtol=1e-5, atol=1e-6)
    assert isinstance(by_list, np.generic | np.ndarray)
    assert np.shape(by_list) == wanted.shape[2:]


@pytest.mark.slow
def test_samples_follow_the_policy_and_its_key(discrete: floppy.Policies, continuous: floppy.Policies) -> None:
    key, many = jax.random.key(4), np.tile(OBSERVATIONS[0, 0], (4000, 1))
    chances = jax.nn.softmax(floppy.policy_outputs(discrete, np.tile(OBSERVATIONS[0, :1], (3, 1, 1)))[1, 0])
    drawn = discrete[1].act(many, key)
    assert abs(drawn.mean() - chances[1]) < 5 * np.sqrt(0.25 / 4000)
    np.testing.assert_array_equal(discrete[1].act(many, key), drawn)
    wide = dataclasses.replace(continuous.network.actions, low=(-99.0,) * 2, high=(99.0,) * 2)
    one = dataclasses.replace(continuous[1], network=dataclasses.replace(continuous.network, actions=wide))
    free = one.act(many, key)
    np.testing.assert_allclose(free.mean(axis=0), one.act(many[0]), atol=0.1)
    np.testing.assert_allclose(free.std(axis=0), np.exp(continuous.weights.log_std[1]), rtol=0.1)
    np.testing.assert_allclose(continuous[1].act(many, key), np.clip(free, BOX["low"], BOX["high"]), rtol=1e-6)


def test_all_policies_sample_by_their_numbers(policies: floppy.Policies) -> None:
    key = jax.random.key(8)
    actions = policies.act(OBSERVATIONS[0, 0], key)
    for index, one in enumerate(policies):
        own = one.act(OBSERVATIONS[0, 0], jax.random.fold_in(key, index))
        np.testing.assert_allclose(actions[index], own, rtol=1e-5, atol=1e-6)


def test_policies_can_be_pickled_and_copied(policies: floppy.Policies) -> None:
    observation, actors = OBSERVATIONS[0, 0], (policies, policies[1], policies.together())
    for actor in actors:
        actions = actor.act(observation)  # keeps a compiled function
        for again in (pickle.loads(pickle.dumps(actor)), copy.deepcopy(actor)):
            same(again, actor)
            np.testing.assert_array_equal(again.act(observation), actions)


def test_acting_stands_inside_compiled_functions(continuous: floppy.Policies) -> None:
    key, one, seen = jax.random.key(0), continuous[0], jnp.asarray(OBSERVATIONS[0])
    wanted = one.act(seen, key)
    np.testing.assert_allclose(jax.jit(lambda p, o: p.act(o, key))(one, seen), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda p: p.act(OBSERVATIONS[0], key))(one), wanted, rtol=1e-5, atol=1e-6)
    one_by_one = jax.vmap(lambda o: one.act(o))(seen)
    np.testing.assert_allclose(one_by_one, one.act(seen), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_observations_are_read_as_in_play(discrete: floppy.Policies) -> None:
    """Bytes are pixels, other whole numbers are numbers."""
    plain = floppy.train(dataset_of({"actions": BOX}), 0, learners=2)[0]
    whole = np.array([200, 7, 0, 255])
    np.testing.assert_allclose(plain.act(whole.astype(np.uint8)), plain.act(whole / 255), rtol=1e-5)
    np.testing.assert_allclose(plain.act(whole.astype(np.int64)), plain.act(whole.astype(float)), rtol=1e-5)
    assert (plain.act(whole) != plain.act(whole / 255)).any()
    seen = normalise(discrete.statistics, jnp.asarray(OBSERVATIONS[0]))
    unscaled = dataclasses.replace(discrete, statistics=None)
    np.testing.assert_array_equal(unscaled[1].act(seen), discrete[1].act(OBSERVATIONS[0]))
    assert (unscaled.act(OBSERVATIONS) != discrete.act(OBSERVATIONS)).any()


@pytest.mark.parametrize("acting", ["one", "many"])
def test_a_number_in_place_of_a_key_is_refused(discrete: floppy.Policies, acting: str) -> None:
    actor = discrete[0] if acting == "one" else discrete
    assert "key must be a PRNG key, such as jax.random.key(0), got 0" in refusal(lambda: actor.act(np.ones(4), 0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("x", "got 'x'"),
        (True, "such as jax.random.key(0), got True"),
        (np.random.default_rng(0), "got Generator"),
        ([0, 1], "got [0, 1]"),
        (jnp.zeros(2), "got float32 of shape [2]"),
        (jax.random.split(jax.random.key(0), 3), "of shape [3]: one serves all observations"),
        (jax.random.split(jax.random.PRNGKey(0), 3), "got uint32 of shape [3, 2]: one serves all"),
    ],
)
def test_what_is_not_one_key_is_refused(discrete: floppy.Policies, wrong: Any, said: str) -> None:
    for actor in (discrete[0], discrete):
        assert said in refusal(lambda actor=actor: actor.act(np.ones((3, 4)), wrong))
    assert "key must be one PRNG key or a whole number" in refusal(lambda: floppy.train(dataset_of(), wrong))


@pytest.mark.parametrize("wrong", [None, 0.5, np.nan, np.inf])
def test_what_is_no_seed_is_refused(wrong: Any) -> None:
    assert f"key must be one PRNG key or a whole number, got {wrong!r}" in refusal(
        lambda: floppy.train(dataset_of(), wrong)
    )


@pytest.mark.parametrize("seed", [3.0, np.int64(3), np.float32(3)])
def test_a_whole_float_is_a_seed(seed: Any) -> None:
    key, number = _key_of(seed)
    assert number == 3
    assert key == jax.random.key(3)


@pytest.mark.parametrize("acting", ["one", "many"])
def test_an_observation_with_nan_is_refused(discrete: floppy.Policies, acting: str) -> None:
    actor = discrete[0] if acting == "one" else discrete
    for wrong in ([0.0, np.nan, 0.0, 0.0], np.full(4, np.nan, np.float32)):
        assert "The observation must hold no NaN, got" in refusal(lambda wrong=wrong: actor.act(wrong))


def test_a_raw_key_is_a_key(discrete: floppy.Policies) -> None:
    raw = jax.random.PRNGKey(3)
    for key in (raw, np.asarray(raw)):
        np.testing.assert_array_equal(discrete.act(OBSERVATIONS, key), discrete.act(OBSERVATIONS, jax.random.key(3)))


def test_no_observations_have_no_actions(discrete: floppy.Policies, continuous: floppy.Policies) -> None:
    for key in (None, jax.random.key(0)):
        assert discrete[0].act(np.zeros((0, 4)), key).shape == (0,)
        assert continuous.together().act(np.zeros((0, 4)), key).shape == (0, 2)
        assert continuous.act(np.zeros((3, 0, 4)), key).shape == (3, 0, 2)


def test_policies_in_place_of_a_dataset_are_refused(discrete: floppy.Policies, tmp_path: Path) -> None:
    assert "floppy.evaluate_policies" in refusal(lambda: floppy.evaluate(discrete))  # type: ignore[arg-type]
    assert "must be a DistilledDataset" in refusal(lambda: floppy.train(3, 0))  # type: ignore[call-overload]
    floppy.save_policies(discrete, tmp_path / "policies.safetensors")
    assert "holds trained policies" in refusal(lambda: floppy.load(tmp_path / "policies.safetensors"))


WHOLE = ("3", 2.5, True, [1, 2], np.ones((2, 2)), None)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        *((lambda _, d, n=n: floppy.train(d, 0, learners=n), "learners must be a whole number") for n in WHOLE),
        *((lambda _, d, n=n: floppy.evaluate(d, learners=n), "learners must be a whole number") for n in WHOLE),
        *((lambda _, d, n=n: floppy.evaluate(d, ensemble=n), "ensemble must be a whole number") for n in WHOLE),
        (lambda _, d: floppy.evaluate(d, episodes="3"), "episodes must be a whole number, got '3'"),
        (lambda _, d: floppy.evaluate(d, seed="3"), "seed must be a whole number, got '3'"),
        (lambda p, _: floppy.evaluate_policies(p, episodes="3"), "episodes must be a whole number, got '3'"),
        (lambda p, _: floppy.evaluate_policies(p[:0]), "policies must be at least 1"),
        (lambda p, _: save_policies(p, "p.safetensors", seed="3"), "seed must be a whole number, got '3'"),
        (lambda _, d: floppy.evaluate(d, distributions=[]), "at least one text or distribution, got none"),
        (lambda _, d: floppy.evaluate(d, distributions=[3]), "distribution must be text, such as lambda"),
        (lambda _, d: floppy.evaluate(d, distributions=None), "distribution must be text, such as lambda"),
        (lambda _, d: floppy.train(d, 0, distribution=3), "distribution must be text, such as lambda"),
        (lambda p, _: floppy.save(p, "d.safetensors"), "floppy.save_policies writes policies"),
        (
            lambda _, d: floppy.save(floppy.DistillResult(d, 1, 1, 1.0, True, False), "d.safetensors"),
            "result.dataset, got DistillResult",
        ),
        (lambda _, d: save_policies(d, "p.safetensors"), "floppy.save writes datasets"),
        (lambda p, _: save_policies(list(p), "p.safetensors"), "or some of them, policies[:2], got [<Policy"),
        (lambda p, _: save_policies(p[0], "p.safetensors"), "give policies[i : i + 1] for one of them"),
        (lambda _, d: floppy.evaluate_policies(d), "floppy.evaluate plays datasets"),
        (lambda *_: floppy.evaluate_policies("p.safetensors"), "floppy.load_policies reads files"),
        (lambda p, _: floppy.evaluate_policies(list(p)), "got [<Policy"),
        (lambda _, d: floppy.policy_outputs(d, OBSERVATIONS), "policies must be the Policies that floppy.train"),
        (
            lambda p, _: floppy.ensemble_outputs(p[0], OBSERVATIONS[0]),
            "policies must be the Policies that floppy.train",
        ),
        (lambda *_: floppy.parse_distribution(3), "distribution must be text, such as lambda"),
        (lambda *_: floppy.recipe("cartpole", distribution=[3]), "distribution must be text, such as lambda"),
    ],
)
def test_what_is_of_another_type_is_refused(discrete: floppy.Policies, attempt: Callable[..., Any], said: str) -> None:
    assert said in refusal(lambda: attempt(discrete, dataset_of()))


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 5)), np.ones((1, 2, 4)), 1.0, [[1.0], [1.0, 2.0]], "left"])
def test_an_observation_of_another_kind_is_refused(discrete: floppy.Policies, wrong: Any) -> None:
    assert "observation must be" in refusal(lambda: discrete[0].act(wrong))
    for shape in ((2, 4), (2, 5, 4), (3, 1, 1, 4), (3,)):
        assert "[4] or one for each [3, 4] or k for each [3, k, 4]" in refusal(lambda s=shape: discrete.act(np.ones(s)))


def test_statistics_that_start_in_every_evaluation_are_the_callers_to_keep() -> None:
    policies = floppy.train(dataset_of({"normaliser": "per-evaluation"}), 0, learners=3)
    for acting in (policies, policies[0], policies.together()):
        assert "with_statistics" in refusal(lambda acting=acting: acting.act(OBSERVATIONS[0, 0]))
    frozen = policies.with_statistics(STATISTICS["obs_mean"], STATISTICS["obs_var"])
    wanted = floppy.train(dataset_of({"normaliser": "frozen"}, **STATISTICS), 0, learners=3)
    np.testing.assert_array_equal(frozen.act(OBSERVATIONS), wanted.act(OBSERVATIONS))
    one = policies[2].with_statistics(STATISTICS["obs_mean"], STATISTICS["obs_var"])
    np.testing.assert_array_equal(one.act(OBSERVATIONS[2]), wanted.act(OBSERVATIONS)[2])
    assert "[4]" in refusal(lambda: policies.with_statistics(0.0, 1.0))


@pytest.mark.thorough(all_but=["discrete", "continuous"])
def test_an_ensemble_is_one_policy(policies: floppy.Policies) -> None:
    whole = policies.together()
    outputs = floppy.policy_outputs(policies, np.tile(OBSERVATIONS[:1], (len(policies), 1, 1)))
    if policies.network.actions.kind == "discrete":
        wanted = np.argmax(jax.nn.softmax(outputs).mean(axis=0), axis=-1)
    else:
        wanted = np.clip(outputs.mean(axis=0), BOX["low"], BOX["high"])
    np.testing.assert_allclose(whole.act(OBSERVATIONS[0]), wanted, rtol=1e-5, atol=1e-6)
    assert np.shape(whole.act(OBSERVATIONS[0, 0], jax.random.key(0))) == wanted.shape[1:]


def test_acting_costs_little_beyond_the_network(discrete: floppy.Policies) -> None:
    """Under 100 µs: the best of many short stretches, for other processes come between."""
    one, observation = discrete[0], OBSERVATIONS[0, 0]
    bare = jax.jit(lambda weights, o: one.network.apply(weights, o[None]).argmax(axis=-1)[0])

    def seconds(function: Callable[[], Any]) -> float:
        found = []
        for _ in range(40):
            started = time.perf_counter()
            for _ in range(25):
                function()
            found.append((time.perf_counter() - started) / 25)
        return min(found)

    network = seconds(lambda: np.asarray(bare(one.weights, observation)))
    assert seconds(lambda: one.act(observation)) - network < 100e-6
    key = jax.random.key(0)
    assert seconds(lambda: one.act(observation, key)) - network < 100e-6


# --- Merged datasets ---


@pytest.fixture(scope="module")
def merged() -> floppy.DistilledDataset:
    one = hand_dataset({"learners": [dataclasses.asdict(SMALL)], "normaliser": "frozen"}, **STATISTICS)
    other = hand_dataset({"learners": [dataclasses.asdict(SMALL)], "task": "ndcartpole/2"}, sizes=(8, 4))
    return floppy.merge([one, other])


@pytest.mark.slow
def test_a_task_has_its_part_of_policies_of_several(merged: floppy.DistilledDataset, tmp_path: Path) -> None:
    joint = floppy.train(merged, 0, learners=3)
    assert "for_task" in refusal(lambda: joint.act(np.ones(12)))
    assert "for_task" in refusal(lambda: joint[0].act(np.ones(12)))
    save_policies(joint, tmp_path / "joint.safetensors")
    first, count = joint.blocks[0].actions
    padded = np.concatenate([OBSERVATIONS, np.zeros((3, 5, 8), np.float32)], axis=-1)
    outputs = floppy.policy_outputs(joint, jnp.asarray(padded))[..., first : first + count]
    for whole in (joint, load_policies(tmp_path / "joint.safetensors")):
        own = whole.for_task("ndcartpole/1")
        np.testing.assert_allclose(floppy.policy_outputs(own, jnp.asarray(OBSERVATIONS)), outputs, rtol=1e-4, atol=1e-5)
        same(own, floppy.train(merged, 0, learners=3, task="ndcartpole/1"))
        np.testing.assert_array_equal(own[1].act(OBSERVATIONS[1]), np.argmax(outputs[1], axis=-1))
        np.testing.assert_array_equal(
            whole[1].for_task("ndcartpole/1").act(OBSERVATIONS[1]), own[1].act(OBSERVATIONS[1])
        )
        assert own.for_task("ndcartpole/1") is own
    assert joint.for_task("ndcartpole/2").act(np.ones(8)).shape == (3,)
    assert "ndcartpole/1 and ndcartpole/2, not of ndcartpole/3" in refusal(lambda: joint.for_task("ndcartpole/3"))
    assert "give a task with the same spaces" in refusal(lambda: own.for_task("ndcartpole/2"))
    assert "not of ndcartpole/3" in refusal(lambda: floppy.train(merged, 0, task="ndcartpole/3"))
    whole = joint.together()
    assert "policies.for_task(id).together()" in refusal(lambda: whole.for_task("ndcartpole/1"))
    assert "for_task(id).together()" in refusal(lambda: floppy.evaluate_policies(whole, task="ndcartpole/1"))


# --- The file ---


@pytest.fixture(scope="module")
def reader() -> dict[str, Any]:
    """The reader printed in the specification."""
    blocks = re.findall(r"^```python\n(.*?)^```$", SPECIFICATION.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    assert set(re.findall(r"^(?:import|from) (\w+)", blocks[0], re.MULTILINE)) == {"json", "struct", "numpy"}
    namespace: dict[str, Any] = {}
    exec(blocks[0], namespace)
    return namespace


def test_a_file_gives_the_policies_back(policies: floppy.Policies, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "policies.safetensors"
    assert not is_policy_file(path)
    save_policies(policies, path)
    assert is_policy_file(path)
    loaded = load_policies(path)
    observations = np.tile(OBSERVATIONS[:1], (len(policies), 1, 1))
    for act in (lambda p: p.act(observations), lambda p: p.act(observations, jax.random.key(1))):
        np.testing.assert_array_equal(act(loaded), act(policies))
    assert (loaded.network, loaded.task, loaded.blocks) == (policies.network, policies.task, ())
    assert loaded.origin == policies.origin
    written = path.read_bytes()
    assert "exists already" in refusal(lambda: save_policies(policies, path))
    save_policies(loaded, path, overwrite=True)
    assert path.read_bytes() == written
    assert "policies[i : i + 1]" in refusal(lambda: save_policies(policies[0], path, overwrite=True))
    save_policies(policies[:1], path, overwrite=True, ensemble=True, seed=9)
    again = load_policies(path)
    assert (len(again), again.is_ensemble, again.origin.seed) == (1, True, 9)


def test_the_printed_reader_plays_the_same_policies(
    policies: floppy.Policies, tmp_path: Path, reader: dict[str, Any]
) -> None:
    """Also those of random depth, of which it applies every layer that it finds."""
    save_policies(policies, tmp_path / "p.safetensors")
    about, tensors = reader["read"](tmp_path / "p.safetensors")
    for number, one in enumerate(policies):
        for observation in OBSERVATIONS[0]:
            action = reader["act"](about, tensors, number, observation)
            np.testing.assert_allclose(action, one.act(observation), rtol=1e-4, atol=1e-5)
    random = np.random.default_rng(0)
    drawn = np.array([reader["act"](about, tensors, 1, OBSERVATIONS[0, 0], random) for _ in range(500)])
    wanted = policies[1].act(np.tile(OBSERVATIONS[0, 0], (500, 1)), jax.random.key(0))
    np.testing.assert_allclose(drawn.mean(axis=0), wanted.mean(axis=0), atol=0.15)
    assert about["dataset"] == policies.origin.dataset
    assert about["seed"] == 0


def test_the_printed_reader_knows_every_activation(reader: dict[str, Any]) -> None:
    ours = inspect.getmodule(LearnerDistribution).ACTIVATIONS
    assert set(reader["ACTIVATIONS"]) == set(ours)
    values = np.linspace(-3, 3, 25, dtype=np.float32)
    for name, function in reader["ACTIVATIONS"].items():
        np.testing.assert_allclose(function(values), ours[name](values), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough(all_but=["elu"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu", "elu"])
def test_the_printed_reader_applies_the_activation(activation: str, tmp_path: Path, reader: dict[str, Any]) -> None:
    learners = dataclasses.replace(SMALL, activation=activation)
    policies = floppy.train(dataset_of({"actions": BOX}), 0, learners=1, distribution=learners)
    save_policies(policies, tmp_path / "p.safetensors")
    found = reader["act"](*reader["read"](tmp_path / "p.safetensors"), 0, 3 * OBSERVATIONS[0, 0])
    np.testing.assert_allclose(found, policies[0].act(3 * OBSERVATIONS[0, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_policies_behind_convolutions_are_kept(tmp_path: Path) -> None:
    learners = LearnerDistribution(network="minatar-cnn", width=(6, 6), depth=(1, 1))
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
    policies = floppy.train(dataset_of(observations=images, targets=np.eye(2)), 0, learners=2, distribution=learners)
    save_policies(policies, tmp_path / "p.safetensors")
    loaded = load_policies(tmp_path / "p.safetensors")
    same(loaded, policies)
    pixels = np.random.default_rng(1).integers(0, 256, (4, 4, 2), np.uint8)
    np.testing.assert_array_equal(loaded.act(pixels), policies.act(pixels))


class TwoLayers:
    """A network of a user's own; `apply` reads a nested pytree."""

    def init(self, key: jax.Array, observations: jax.Array) -> Any:
        first, second = jax.random.split(key)
        return {"in": [jax.random.normal(first, (observations.shape[1], 5))], "out": jax.random.normal(second, (5, 2))}

    def apply(self, params: Any, observations: jax.Array) -> jax.Array:
        return jnp.sin(observations @ params["in"][0]) @ params["out"]


@pytest.mark.slow
def test_networks_of_ones_own_are_kept_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.safetensors"
    unnamed = floppy.train(dataset_of(), 0, learners=2, distribution=floppy.network(TwoLayers()))
    assert "register" in refusal(lambda: save_policies(unnamed, path))
    assert not path.exists()
    monkeypatch.setattr(NETWORKS, "_members", dict(NETWORKS))
    floppy.register_network("two-layers", TwoLayers())
    policies = floppy.train(dataset_of(), 0, learners=2, distribution="two-layers")
    save_policies(policies, path)
    assert set(safetensors.numpy.load_file(path)) == {"params/in/0", "params/out"}
    same(load_policies(path), policies)
    monkeypatch.setattr(NETWORKS, "_members", {})
    assert "two-layers" in refusal(lambda: load_policies(path))


def test_diverged_policies_are_not_written(discrete: floppy.Policies, tmp_path: Path) -> None:
    broken = jax.tree.map(lambda leaf: leaf.at[..., 0].set(np.nan) if leaf.ndim == 3 else leaf, discrete)
    all_nan = jax.tree.map(lambda leaf: leaf * np.nan, discrete)
    for wrong in (broken, all_nan):
        assert "NaN or infinite" in refusal(lambda wrong=wrong: save_policies(wrong, tmp_path / "p.safetensors"))
    assert "policies must be at least 1" in refusal(lambda: save_policies(discrete[:0], tmp_path / "p.safetensors"))
    assert not list(tmp_path.iterdir())


def edited(about: dict[str, Any] | None = None, drop: str = "", **tensors: Any) -> Callable[[Path], None]:
    """Writes a file again with another description or other tensors."""

    def edit(path: Path) -> None:
        with safetensors.safe_open(path, "numpy") as file:
            description = json.loads(file.metadata()[POLICIES_KEY]) | (about or {})
        description = {name: value for name, value in description.items() if value != "gone"}
        kept = {name: array for name, array in safetensors.numpy.load_file(path).items() if name != drop}
        changed = {name.replace("_0_", "/0/"): array for name, array in tensors.items()}
        safetensors.numpy.save_file(kept | changed, path, {POLICIES_KEY: json.dumps(description)})

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged"),
        (lambda path: floppy.save(hand_dataset(), path, overwrite=True), "no policy file"),
        (edited({"format": 3}), "Format 3 is unknown"),
        (edited({"seed": "gone"}), "keys 'seed'"),
        (edited({"colour": "red"}), "keys 'colour'"),
        (edited({"policies": 2}), "leading axis of 2 policies"),
        (edited({"policies": 0}), "policies must be at least 1"),
        (edited({"policies": True}), "wrong type"),
        (edited({"task": ""}), "task is empty"),
        (edited({"observation_shape": [5]}), "obs_mean and obs_var must be of shape (5,)"),
        (edited({"observation_shape": [0.5]}), "observation_shape must be whole numbers"),
        (edited({"actions": {"kind": "discrete", "size": 0}}), "size 0"),
        (edited({"actions": BOX}), "sampling must be clipped-normal"),
        (edited({"actions": BOX, "sampling": "clipped-normal"}), "log_std must be of shape (3, 2), got none"),
        (edited({"actions": {"kind": "discrete", "size": 3}}), "not those of the network"),
        (edited({"network": {"width": [64, 64]}}), "not those of the network"),
        (edited({"network": {"activation": "sine"}}), "one of tanh, relu"),
        (edited({"normaliser": "none"}), "normaliser none has none"),
        (edited({"normaliser": "sometimes"}), "normaliser is 'sometimes'"),
        (edited({"seed": -1}), "seed must be"),
        (edited(drop="obs_var"), "statistics 'obs_mean'"),
        (edited(drop="layers/1/bias"), "not those of the network"),
        (edited(extra=np.ones((3, 2), np.float32)), "not those of the network"),
        (edited(obs_var=np.full(4, -1, np.float32)), "variance"),
        (edited(obs_mean=np.full(4, np.inf, np.float32)), "'obs_mean' holds NaN"),
        (edited(obs_mean=np.zeros(4, np.float64)), "F64"),
        (edited(policies_0_layers=np.zeros(4, np.float32)), "not those of the network"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    discrete: floppy.Policies, tmp_path: Path, edit: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "p.safetensors"
    save_policies(discrete, path)
    edit(path)
    message = refusal(lambda: load_policies(path))
    assert said in message
    assert message.startswith(str(path))
