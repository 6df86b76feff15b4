"""Networks of users' own: flax, equinox, haiku or plain functions as learners, and what is refused at the door."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ObservationProbe, hand_dataset

import floppy
from floppy.cli import main
from floppy.cloning import Distilled, GradientStep, ImplicitStep, clone
from floppy.errors import FloppyError
from floppy.learner.distribution import learners_of, parse_distribution
from floppy.learner.mlp import LearnerDistribution, Weights
from floppy.learner.network import Network
from floppy.learner.user_networks import NETWORKS, ModuleWeights
from floppy.spaces import ActionSpace, Continuous, Discrete
from floppy.studies.search import count_weights
from floppy.tasks import register

OBSERVATION, OUTPUTS, WIDTH = (4,), 2, 8
ACTIONS = Discrete(OUTPUTS)
BUILT_IN = LearnerDistribution((WIDTH, WIDTH), (1, 1), ("xavier",))
"""What every network below is: one hidden tanh layer."""


class Case(NamedTuple):
    """A library's network, and its parameters from the kernels and biases of the built-in one."""

    module: Any
    params: Callable[[tuple[dict[str, jax.Array], ...]], Any]


def flax_linen() -> Case:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Policy(nn.Module):
        outputs: int

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            hidden = nn.tanh(nn.Dense(WIDTH, name="hidden")(x))
            return nn.Dense(self.outputs, name="output")(hidden)

    return Case(Policy(OUTPUTS), lambda layers: {"hidden": layers[0], "output": layers[1]})


def flax_nnx() -> Case:
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Policy(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.hidden = nnx.Linear(*OBSERVATION, WIDTH, rngs=rngs)
            self.output = nnx.Linear(WIDTH, OUTPUTS, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.output(jnp.tanh(self.hidden(x)))

    return Case(lambda rngs: Policy(rngs), lambda layers: {"hidden": layers[0], "output": layers[1]})


def equinox() -> Case:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    make = functools.partial(eqx.nn.MLP, *OBSERVATION, OUTPUTS, WIDTH, 1, activation=jnp.tanh)  # its argument is `key`

    def params(layers: tuple[dict[str, jax.Array], ...]) -> dict[str, jax.Array]:
        kernels = {f"layers/{index}/weight": layer["kernel"].T for index, layer in enumerate(layers)}
        return kernels | {f"layers/{index}/bias": layer["bias"] for index, layer in enumerate(layers)}

    return Case(make, params)


def haiku(*, with_rng: bool = False) -> Case:
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")
    transformed = hk.transform(lambda x: hk.nets.MLP([WIDTH, OUTPUTS], activation=jnp.tanh)(x))

    def params(layers: tuple[dict[str, jax.Array], ...]) -> dict[str, dict[str, jax.Array]]:
        return {f"mlp/~/linear_{i}": {"w": layer["kernel"], "b": layer["bias"]} for i, layer in enumerate(layers)}

    return Case(transformed if with_rng else hk.without_apply_rng(transformed), params)


@dataclasses.dataclass(frozen=True)
class Plain:
    """By hand; it shows its output layer, so that an implicit step can be taken."""

    outputs: int = OUTPUTS

    def init(self, key: jax.Array, observations: jax.Array) -> dict[str, Any]:
        sizes = observations.shape[1], WIDTH, self.outputs
        keys = jax.random.split(key)
        return {
            name: {"kernel": jax.random.normal(keys[i], sizes[i : i + 2]), "bias": jnp.zeros(sizes[i + 1])}
            for i, name in enumerate(("hidden", "output"))
        }

    def features(self, params: dict[str, Any], observations: jax.Array) -> jax.Array:
        return jnp.tanh(observations @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])

    def readout(self, params: dict[str, Any]) -> dict[str, jax.Array]:
        return params["output"]

    def with_readout(self, params: dict[str, Any], readout: dict[str, jax.Array]) -> dict[str, Any]:
        return params | {"output": readout}

    def apply(self, params: dict[str, Any], observations: jax.Array) -> jax.Array:
        output = params["output"]
        return self.features(params, observations) @ output["kernel"] + output["bias"][None]


def plain() -> Case:
    return Case(Plain(), lambda layers: {"hidden": layers[0], "output": layers[1]})


def of_sizes() -> Case:
    """A function that makes a network for the task's sizes."""
    return Case(lambda shape, outputs: Plain(outputs), plain().params)


CASES = [flax_linen, flax_nnx, equinox, haiku, functools.partial(haiku, with_rng=True), plain, of_sizes]
NAMES = ["flax-linen", "flax-nnx", "equinox", "haiku", "haiku-with-rng", "plain", "of-sizes"]


class Answers(NamedTuple):
    draws: Any
    """Leaves `[2, ...]`."""
    outputs: jax.Array
    learnt: Any


@functools.partial(jax.jit, static_argnums=0)
def ask(network: Network[Any], weights: Any, distilled: Distilled) -> Answers:
    """All that is asked of a network, compiled at once."""
    draws = jax.vmap(network.init)(jax.random.split(jax.random.key(0)))
    outputs = network.apply(weights, distilled.observations)
    return Answers(draws, outputs, clone(GradientStep(), network, distilled, weights))


@functools.cache
def expected(actions: ActionSpace) -> tuple[Weights, Distilled, Answers]:
    """Weights of the built-in network, a dataset, and what becomes of them."""
    network, random = BUILT_IN.bind(OBSERVATION, actions), np.random.default_rng(0)
    observations, targets = (jnp.asarray(random.normal(size=(3, n)), jnp.float32) for n in (4, OUTPUTS))
    fresh = jax.jit(network.init)(jax.random.key(1))
    distilled = Distilled(observations, targets, fresh.log_std + 0.5, jnp.asarray(0.4), ())
    return fresh, distilled, ask(network, fresh, distilled)


def assert_learns_as_built_in(case: Case, actions: ActionSpace) -> None:
    fresh, distilled, wanted = expected(actions)
    same = ModuleWeights(case.params(fresh.layers), fresh.log_std)
    got = ask(floppy.network(case.module).bind(OBSERVATION, actions), same, distilled)
    np.testing.assert_allclose(got.outputs, wanted.outputs, atol=1e-6)
    learnt = ModuleWeights(case.params(wanted.learnt.layers), wanted.learnt.log_std)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got.learnt, learnt)
    assert jax.tree.map(lambda leaf: leaf.shape[1:], got.draws) == jax.tree.map(jnp.shape, same)
    kernels = [leaf for leaf in jax.tree.leaves(got.draws) if leaf.ndim == 3]
    assert len(kernels) == 2
    assert not any(np.array_equal(*leaf) for leaf in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("make", CASES, ids=NAMES)
def test_every_library_learns_as_the_built_in_network_does(make: Callable[[], Case]) -> None:
    assert_learns_as_built_in(make(), ACTIONS)


@pytest.mark.slow
def test_continuous_actions() -> None:
    assert_learns_as_built_in(plain(), Continuous(2, (-1.0, -1.0), (1.0, 1.0)))


def test_equal_modules_share_a_network() -> None:
    assert floppy.network(Plain()) == floppy.network(Plain())
    first, again = (floppy.network(Plain()).bind(OBSERVATION, ACTIONS) for _ in range(2))
    assert first == again
    assert hash(first) == hash(again)
    assert first != floppy.network(Plain(3)).bind(OBSERVATION, Discrete(3))


def test_the_implicit_step_reads_the_output_layer() -> None:
    fresh, distilled, _ = expected(ACTIONS)
    same = ModuleWeights(plain().params(fresh.layers), fresh.log_std)
    run = jax.jit(clone, static_argnums=(0, 1))
    learnt = run(ImplicitStep(), floppy.network(Plain()).bind(OBSERVATION, ACTIONS), distilled, same)
    wanted = run(ImplicitStep(), BUILT_IN.bind(OBSERVATION, ACTIONS), distilled, fresh)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        learnt.params,
        plain().params(wanted.layers),
    )


# What is no network, or none that can be used here.


def refusal(function: Callable[[], Any]) -> str:
    with pytest.raises(FloppyError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ")."))
    return message


def bound(module: Any, actions: Any = ACTIONS) -> str:
    return refusal(lambda: floppy.network(module).bind(OBSERVATION, actions))


@dataclasses.dataclass(frozen=True)
class Faulty(Plain):
    """A network with one fault."""

    fault: str = ""

    def init(self, key: jax.Array, observations: jax.Array) -> dict[str, Any]:
        params = super().init(key, observations)
        if self.fault == "half":
            return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        return params | ({"step": jnp.zeros((), jnp.int32)} if self.fault == "counts" else {})

    def apply(self, params: dict[str, Any], observations: jax.Array) -> jax.Array:
        if self.fault == "raises":
            raise RuntimeError("several\nlines")
        return super().apply(params, observations)[:, 0 if self.fault == "flat" else slice(None)]

    def features(self, params: dict[str, Any], observations: jax.Array) -> jax.Array:
        hidden = super().features(params, observations)
        return hidden[0] if self.fault == "features" else hidden

    def readout(self, params: dict[str, Any]) -> dict[str, jax.Array]:
        return {"w": params["output"]["kernel"]} if self.fault == "readout" else super().readout(params)

    def with_readout(self, params: dict[str, Any], readout: dict[str, jax.Array]) -> dict[str, Any]:
        return {"output": readout} if self.fault == "forgets" else super().with_readout(params, readout)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("half", ["must have weights, all of them float32", "got bfloat16"]),
        ("counts", ["all of them float32", "int32"]),
        ("raises", ["Faulty fails on observations [3, 4]", "RuntimeError: several lines"]),
        ("flat", ["must give float32[3, 2] for 3 observations", "got float32[3]", "2 outputs"]),
        ("readout", ["readout of kernel NoneType", "{'kernel': [f, 2], 'bias': [2]}"]),
        ("forgets", ["with_readout", "must give parameters of the form that it got"]),
    ],
)
def test_faults_of_a_network(fault: str, words: list[str]) -> None:
    message = bound(Faulty(fault=fault))
    for word in words:
        assert word in message


def test_an_output_of_another_size() -> None:
    assert "must give float32[3, 3] for 3 observations" in bound(Plain(2), Discrete(3))


def test_what_is_no_network() -> None:
    assert "must have `init` and `apply`" in refusal(lambda: floppy.network(3))
    assert "Plain is a class: give an object of it as the network, Plain()." in refusal(lambda: floppy.network(Plain))
    assert "cannot be hashed (unhashable type: 'list')" in refusal(lambda: floppy.network(Plain([2])))  # type: ignore[arg-type]
    assert "takes nothing" in bound(lambda: Plain())
    assert "a key alone" in bound(lambda a, b, c: Plain())
    assert "must make a module of equinox or flax.nnx" in bound(lambda key: {"kernel": key})
    for name in ("", "a,b", "a=b", 3):
        assert "must be text without commas and =" in refusal(lambda name=name: floppy.register_network(name, Plain()))
    assert "registered already" in refusal(lambda: floppy.register_network("lambda", Plain()))
    assert "cannot be called any, which is a mixture" in refusal(lambda: floppy.register_network("any", Plain()))


def test_state_and_dropout_in_flax_linen() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.BatchNorm(use_running_average=False)(nn.Dense(OUTPUTS)(x))

    class Random(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dropout(0.5, deterministic=False)(nn.Dense(OUTPUTS)(x))

    class OfList(nn.Module):
        sizes: Any

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(self.sizes[0])(x)

    assert "keeps batch_stats besides" in bound(Normalised())
    assert "dropout must be off" in bound(Random())
    assert "Random fails" in bound(Random())
    assert "give tuples in place of lists" in refusal(lambda: floppy.network(OfList(np.zeros(2))))
    assert "is a class" in refusal(lambda: floppy.network(Random))


def test_state_and_dropout_in_flax_nnx() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Policy(nnx.Module):
        def __init__(self, normalises: bool, rngs: Any) -> None:
            self.linear = nnx.Linear(*OBSERVATION, OUTPUTS, rngs=rngs)
            self.other = nnx.BatchNorm(OUTPUTS, rngs=rngs) if normalises else nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.other(self.linear(x))

    assert "keeps BatchStat besides" in bound(functools.partial(Policy, True))
    assert "keeps RngCount, RngKey besides" in bound(functools.partial(Policy, False))
    assert "has its weights already: give a function from a key" in refusal(
        lambda: floppy.network(Policy(True, nnx.Rngs(0)))
    )


def test_state_and_dropout_in_equinox() -> None:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    linear = functools.partial(eqx.nn.Linear, *OBSERVATION, OUTPUTS)
    normal = functools.partial(eqx.nn.BatchNorm, OUTPUTS, "batch", mode="batch")
    assert "keeps a state (equinox.nn.StateIndex)" in bound(lambda key: eqx.nn.Sequential([linear(key=key), normal()]))
    assert "dropout must be off" in bound(lambda key: eqx.nn.Sequential([linear(key=key), eqx.nn.Dropout(0.5)]))
    assert "has its weights already" in refusal(lambda: floppy.network(linear(key=jax.random.key(0))))


def test_state_and_dropout_in_haiku() -> None:
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")

    def dropout(x: jax.Array) -> jax.Array:
        return hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(OUTPUTS)(x))

    def normal(x: jax.Array) -> jax.Array:
        return hk.BatchNorm(True, True, 0.9)(hk.Linear(OUTPUTS)(x), True)

    assert "dropout must be off" in bound(hk.transform(dropout))
    assert "keeps a state (haiku.transform_with_state)" in bound(hk.transform_with_state(normal))


# Through the library's commands.


@pytest.fixture(scope="module")
def residual() -> str:
    """A network of flax with LayerNorm and a residual connection, registered; two-layer networks learn as quickly."""
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Residual(nn.Module):
        outputs: int = OUTPUTS

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            hidden = nn.tanh(nn.Dense(WIDTH)(x))
            hidden += nn.Dense(WIDTH)(nn.tanh(nn.LayerNorm()(hidden)))
            return nn.Dense(self.outputs)(hidden)

    register("networks-probe", lambda rest: ObservationProbe(task_id=f"networks-probe/{rest}"))
    floppy.register_network("test-residual", Residual())
    return "test-residual"


@pytest.fixture(scope="module")
def distilled_for(residual: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset for that network, in a file."""
    outer = floppy.PPMO(learners=8, environments=16, horizon=4, minibatch_size=512, epochs=4, rate=0.05)
    config = floppy.DistillConfig(
        "networks-probe/1",
        distribution=residual,
        outer_steps=24,
        evaluate_every=24,
        outer=outer,
        **dict.fromkeys(("selection_learners", "score_learners"), 20),
        **dict.fromkeys(("selection_episodes", "score_episodes"), 10),
    )
    folder = tmp_path_factory.mktemp("networks") / "run"
    floppy.distill(config, folder, progress=False)
    return folder / "dataset.safetensors"


@pytest.fixture(scope="module")
def made_for(residual: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset by hand for that network, in a file."""
    card = {
        "task": "networks-probe/1",
        "learners": [{"network": "module", "name": residual}],
        "cloning": {"kind": "GradientStep", "loss": "mse", "steps": 20},
    }
    cues = np.array([[1.0], [-1.0]])
    dataset = hand_dataset(card, observations=cues, targets=cues * [[-3.0, 3.0]], inner_rate=0.1)
    path = tmp_path_factory.mktemp("networks") / "dataset.safetensors"
    floppy.save(dataset, path)
    return path


def test_an_outer_step_improves_a_dataset_for_it(residual: str) -> None:
    problem = floppy.DistillConfig("networks-probe/1", distribution=residual).problem()
    outer = floppy.PPMO(learners=2, environments=2, horizon=2, epochs=1, minibatch_size=4)
    state = jax.eval_shape(lambda key: outer.init(problem, key), jax.random.key(0))
    after, info = jax.eval_shape(lambda state, key: outer.step(problem, state, key), state, jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, state)
    assert info["gradient_norm"].shape == ()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_dataset_distilled_for_it_teaches_it(distilled_for: Path, residual: str) -> None:
    dataset = floppy.load(distilled_for)
    assert dataset.card.learners == [{"network": "module", "name": residual}]
    assert learners_of(dataset.card.learners[0]) == NETWORKS[residual] == parse_distribution(residual)
    assert dataset.card.score is not None
    scores = floppy.evaluate(dataset, distributions=["card", residual], learners=20, episodes=10)
    assert scores["card"].mean > 0.9  # at random 0.5
    assert scores["card"].mean == scores[residual].mean
    policies = floppy.train(dataset, 0, learners=2)
    assert policies[0].act(np.ones(1, np.float32)) == 1
    assert policies[1].act(-np.ones(1, np.float32)) == 0


def test_it_is_searched_over_and_evaluated_on_the_command_line(
    made_for: Path, residual: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = floppy.load(made_for).card.learners[0]
    assert learners_of(entry) == NETWORKS[residual] == parse_distribution(residual)
    words = ["evaluate", str(made_for), "--distribution", f"card,{residual}", "--learners", "20", "--json"]
    assert main([*words, "--episodes", "10"]) == 0
    scores = json.loads(capsys.readouterr().out)["distributions"]
    assert scores["card"]["mean"] == scores[residual]["mean"] > 0.9
    network = NETWORKS[residual].bind((1,), ACTIONS)
    assert count_weights(network) == (1 + 1) * WIDTH + 2 * WIDTH + (WIDTH + 1) * WIDTH + (WIDTH + 1) * OUTPUTS


def test_any_dataset_of_the_task_teaches_it() -> None:
    dataset = hand_dataset()
    by_object = floppy.train(dataset, 0, learners=2, distribution=floppy.network(Plain()))
    floppy.register_network("test-plain", Plain())
    by_name = floppy.train(dataset, 0, learners=2, distribution="test-plain")
    jax.tree.map(np.testing.assert_array_equal, by_object.weights, by_name.weights)
    assert "test-plain" in repr(by_name)


def test_an_unregistered_network_is_refused_by_a_card(made_for: Path, residual: str) -> None:
    dataset = floppy.load(made_for)
    entry = {"network": "module", "name": "someone-else's"}
    other = dataclasses.replace(dataset, card=dataclasses.replace(dataset.card, learners=[entry]))
    message = refusal(lambda: floppy.train(other, 0))
    assert "someone-else's" in message
    assert "register_network" in message
    floppy.train(other, 0, distribution=residual)  # it is another that learns


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cloning": ImplicitStep()}, "ImplicitStep needs a network that has features and a readout"),
        ({"encoder_layers": 1}, "encoder"),
    ],
)
def test_missing_abilities_are_refused_before_anything_runs(
    changes: dict[str, Any], words: str, residual: str, tmp_path: Path
) -> None:
    config = floppy.recipe("networks-probe/1", distribution=residual, **changes)
    assert words in refusal(lambda: floppy.distill(config, tmp_path / "run", progress=False))
    assert not (tmp_path / "run").exists()


def test_abilities_by_the_card(residual: str) -> None:
    implicit = hand_dataset({"cloning": {"kind": "ImplicitStep", "loss": "mse"}})
    assert "ImplicitStep needs a network" in refusal(lambda: floppy.train(implicit, 0, distribution=residual))
    policies = floppy.train(implicit, 0, learners=2, distribution=floppy.network(Plain()))
    assert np.isfinite(policies.weights.params["output"]["kernel"]).all()


@pytest.mark.slow
def test_adam_steps_train_every_parameter(residual: str) -> None:
    cloning = {"kind": "AdamSteps", "loss": "cross-entropy", "steps": 2}
    dataset = hand_dataset({"cloning": cloning}, targets=np.eye(2, dtype=np.float32)[[0, 1, 0]])
    network = NETWORKS[residual].bind(OBSERVATION, ACTIONS)
    trained = floppy.train(dataset, jax.random.key(3), learners=1, distribution=residual)[0].weights
    fresh = jax.jit(network.init)(jax.random.split(jax.random.key(3), 1)[0])
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), fresh.params, trained.params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.thorough
@pytest.mark.slow
def test_the_page_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/networks.md, which test_docs.py does not run, with the module that the page describes."""
    pytest.importorskip("flax.linen", reason="flax is not installed")
    text = (Path(__file__).parents[1] / "docs/networks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import flax.*?)\n\nfloppy.register_network", text, re.DOTALL)
    (tmp_path / "my_networks.py").write_text(f"{code}\n\nmine = Residual(outputs=2, width=8)\n", encoding="utf-8")
    (block,) = re.findall(r"```text\n(floppy .*?)```", text, re.DOTALL)
    quick = {
        "distill": "--outer-steps 1 --population 4 --selection-learners 2 --score-learners 2 --score-episodes 1",
        "evaluate": "--learners 2 --episodes 1",
    }
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        words = line.split()[1:]
        assert main([*words, *quick[words[0]].split()]) == 0
    dataset = floppy.load("runs/mine/dataset.safetensors")
    assert dataset.card.learners == [{"network": "module", "name": "my_networks:mine"}]
