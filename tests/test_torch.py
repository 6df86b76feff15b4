"""Modules of PyTorch as learners: the same steps as in JAX on the same weights, and what cannot be taught to them."""

import dataclasses
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import hand_dataset

import floppy
from floppy.cloning.base import clone
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.play.normalise import normalise
from floppy.teach.codec import unpack

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [torch])")
nn = torch.nn


LEARNERS = LearnerDistribution(width=(12, 12), initialiser=("xavier1",))
BOX = {"kind": "continuous", "size": 2, "low": [-0.2, -2.0], "high": [0.2, 2.0]}
TARGETS = np.random.default_rng(1).dirichlet(np.ones(2), size=3)
OBSERVATIONS = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)


def dataset_of(cloning: dict[str, Any] | None = None, **changes: Any) -> floppy.DistilledDataset:
    card = {"learners": [dataclasses.asdict(LEARNERS)]} | ({"cloning": cloning} if cloning else {})
    tensors = {name: changes.pop(name) for name in tuple(changes) if name not in ("actions", "normaliser")}
    return hand_dataset(card | changes, **tensors)


def module_of(layers: Any) -> Any:
    """A module with the weights of a network's layers."""
    parts: list[Any] = []
    for layer in layers:
        kernel, bias = (torch.tensor(np.asarray(layer[name])) for name in ("kernel", "bias"))
        linear = nn.Linear(*kernel.shape)
        linear.weight.data, linear.bias.data = kernel.T.contiguous(), bias
        parts += [linear, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def mlp() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def refusal(attempt: Any) -> str:
    with pytest.raises(FloppyError) as caught:
        attempt()
    message = str(caught.value)
    assert "\n" not in message
    assert message[-1] == "."
    return message


RECIPES = {
    "gradient": ({"kind": "GradientStep", "loss": "mse", "steps": 3}, {"inner_rate": 0.5}),
    "huber": ({"kind": "GradientStep", "loss": "huber", "steps": 2}, {"inner_rate": 0.5, "targets": 3 * TARGETS}),
    "cross-entropy": ({"kind": "GradientStep", "loss": "cross-entropy", "steps": 2}, {"targets": TARGETS}),
    "deviations": ({"kind": "GradientStep", "loss": "mse", "steps": 2}, {"actions": BOX, "log_std": [-1.0, 0.5]}),
    "huber deviations": ({"kind": "GradientStep", "loss": "huber"}, {"actions": BOX, "log_std": [-3.0, 0.5]}),
    "gaussian-nll": ({"kind": "GradientStep", "loss": "gaussian-nll", "steps": 2}, {"actions": BOX, "inner_rate": 0.1}),
    "adam": ({"kind": "AdamSteps", "loss": "mse", "steps": 8, "anneal": True}, {"inner_rate": 0.01}),
    "adam unclipped": (
        {"kind": "AdamSteps", "loss": "gaussian-nll", "steps": 3, "max_grad_norm": 0.0},
        {"actions": BOX, "inner_rate": 0.01},
    ),
    "implicit": ({"kind": "ImplicitStep"}, {"inner_rate": 5.0}),
    "features": ({"kind": "FeatureSteps", "steps": 2}, {"inner_rate": [2.0, 0.5, 5.0]}),
    "unit steps": ({"kind": "FeatureSteps", "steps": 2, "unit_steps": True}, {"inner_rate": [2.0, 0.5, 5.0]}),
    "features and deviations": (
        {"kind": "FeatureSteps"},
        {"actions": BOX, "log_std": [-1.0, 0.5], "inner_rate": [2.0, 0.5, 5.0]},
    ),
    "implicit deviations": ({"kind": "ImplicitStep"}, {"actions": BOX, "log_std": [-1.0, 0.5], "inner_rate": 2.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_weights_learn_the_same(recipe: str) -> None:
    cloning, changes = RECIPES[recipe]
    dataset = dataset_of(cloning, **changes)
    lesson = unpack(dataset)
    fresh = jax.jit(lesson.network().init)(jax.random.key(3))
    in_jax = jax.jit(lambda weights: clone(lesson.cloning, lesson.network(), lesson.distilled, weights))(fresh)
    module = module_of(fresh.layers)
    before = [weight.clone() for weight in module.parameters()]
    (policy,) = floppy.torch.train(dataset, module)
    wanted = lesson.network().apply(in_jax, jnp.asarray(OBSERVATIONS))
    assert np.abs(wanted - lesson.network().apply(fresh, jnp.asarray(OBSERVATIONS))).max() > 1e-3
    np.testing.assert_allclose(policy(torch.tensor(OBSERVATIONS)).detach(), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(policy.log_std.detach(), in_jax.log_std, rtol=1e-5, atol=1e-6)
    for layer, linear in zip(
        in_jax.layers, [part for part in policy.module if isinstance(part, nn.Linear)], strict=True
    ):
        np.testing.assert_allclose(linear.weight.detach().T, layer["kernel"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(linear.bias.detach(), layer["bias"], rtol=1e-5, atol=1e-5)
    # The user's own module stays as it is.
    assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


def test_several_learners_are_drawn_by_the_seed() -> None:
    dataset, module, state = dataset_of(), mlp(), torch.get_rng_state()
    first, again, other = (floppy.torch.train(dataset, module, learners=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    seen = torch.tensor(OBSERVATIONS)
    assert [torch.equal(a(seen), b(seen)) for a, b in zip(first, again, strict=True)] == [True] * 3
    assert [torch.equal(a(seen), b(seen)) for a, b in zip(first, other, strict=True)] == [True, False, False]
    assert not torch.equal(first[1](seen), first[2](seen))
    made = floppy.torch.train(dataset, mlp, learners=2, seed=5)
    torch.manual_seed(5)
    by_hand = [floppy.torch.train(dataset, fresh)[0] for fresh in (mlp(), mlp())]
    assert all(torch.equal(a(seen), b(seen)) for a, b in zip(made, by_hand, strict=True))


@pytest.mark.slow
def test_a_policy_acts_as_in_jax() -> None:
    statistics = {"obs_mean": np.array([1.0, 0.0, -1.0, 2.0]), "obs_var": np.array([4.0, 1.0, 0.25, 1.0])}
    dataset = dataset_of(normaliser="frozen", actions=BOX, log_std=[-1.0, 0.5], **statistics)
    policies = floppy.train(dataset, 0)
    (policy,) = floppy.torch.train(dataset, module_of(jax.tree.map(lambda leaf: leaf[0], policies.weights.layers)))
    policy.module = module_of(jax.tree.map(lambda leaf: leaf[0], policies.weights.layers))
    policy.log_std.data = torch.tensor(np.asarray(policies.weights.log_std[0]))
    wanted = policies[0].act(OBSERVATIONS)
    assert (np.abs(wanted) == 0.2).any()
    for given in (OBSERVATIONS, OBSERVATIONS.astype(np.float64), OBSERVATIONS.tolist(), torch.tensor(OBSERVATIONS)):
        actions = policy.act(given)
        assert isinstance(actions, torch.Tensor if isinstance(given, torch.Tensor) else np.ndarray)
        np.testing.assert_allclose(actions, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.act(OBSERVATIONS[2]), wanted[2], rtol=1e-4, atol=1e-5)
    pixels = np.array([200, 7, 0, 255], np.uint8)
    np.testing.assert_allclose(policy.act(pixels), policies[0].act(pixels), rtol=1e-4, atol=1e-5)
    drawn = policy.act(np.tile(OBSERVATIONS[0], (4000, 1)), torch.Generator().manual_seed(0))
    sampled = policies[0].act(np.tile(OBSERVATIONS[0], (4000, 1)), jax.random.key(0))
    np.testing.assert_allclose(drawn.mean(axis=0), sampled.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(drawn.std(axis=0), sampled.std(axis=0), rtol=0.1)
    raw = np.asarray(normalise(policies.statistics, jnp.asarray(OBSERVATIONS)))
    np.testing.assert_allclose(policy(torch.tensor(OBSERVATIONS)).detach(), policy.module(torch.tensor(raw)).detach())


def test_discrete_actions_are_sampled_by_their_probabilities() -> None:
    (policy,) = floppy.torch.train(dataset_of(), mlp())
    seen = torch.tensor(OBSERVATIONS[:1])
    chance = torch.softmax(policy(seen), dim=-1)[0, 1].item()
    drawn = policy.act(seen.expand(4000, 4), torch.Generator().manual_seed(0))
    assert drawn.float().mean().item() == pytest.approx(chance, abs=5 * np.sqrt(0.25 / 4000))
    assert policy.act(OBSERVATIONS[0]) == policy(seen).argmax().item()
    assert np.shape(policy.act(OBSERVATIONS[0])) == ()


class Functional(nn.Module):  # type: ignore[misc,name-defined]
    """Layers in another order than they are applied in, one of them never used."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.spare = nn.Linear(8, 2, bias=False), nn.Linear(4, 8), nn.Linear(4, 2)

    def forward(self, observations: Any) -> Any:
        return self.head(torch.relu(self.body(observations)))


def test_the_implicit_step_moves_the_layer_that_gives_the_output() -> None:
    module = Functional()
    dataset = dataset_of({"kind": "ImplicitStep"}, inner_rate=1e4)
    (policy,) = floppy.torch.train(dataset, module)
    learnt = policy.module
    assert torch.equal(learnt.body.weight, module.body.weight)
    assert not torch.equal(learnt.head.weight, module.head.weight)
    # A large rate is the least squares: three examples and eight features leave no error.
    outputs = learnt(torch.tensor(dataset.observations)).detach()
    np.testing.assert_allclose(outputs, dataset.targets, atol=1e-2)
    (stepped,) = floppy.torch.train(dataset_of(), module)
    assert torch.equal(stepped.module.spare.weight, module.spare.weight)


def test_what_cannot_be_learnt_is_refused() -> None:
    train = floppy.torch.train
    learners = {"learners": [dataclasses.asdict(LEARNERS)]}
    other = floppy.merge([dataset_of(), hand_dataset(learners | {"task": "ndcartpole/2"}, sizes=(8, 4))])
    assert "merged" in refusal(lambda: train(other, mlp()))
    encoder = {"0/kernel": np.ones((4, 12)), "0/bias": np.ones(12)}
    behind = hand_dataset(learners | {"encoder": {"layers": 1, "of": 3}}, encoder=encoder)
    assert "encoder" in refusal(lambda: train(behind, mlp()))
    assert "2 outputs" in refusal(lambda: train(dataset_of(), nn.Linear(4, 3)))
    assert "fails on observations [3, 4]" in refusal(lambda: train(dataset_of(), nn.Linear(5, 2)))
    assert "no weights" in refusal(lambda: train(dataset_of(), nn.Tanh()))
    assert "an nn.Module" in refusal(lambda: train(dataset_of(), "mlp"))
    assert "an nn.Module" in refusal(lambda: train(dataset_of(), lambda: 3))
    ends_in_tanh = nn.Sequential(mlp(), nn.Tanh())
    assert "nn.Linear" in refusal(lambda: train(dataset_of({"kind": "ImplicitStep"}), ends_in_tanh))
    shared = nn.Linear(4, 4)
    twice = nn.Sequential(shared, shared)
    wide = hand_dataset({"cloning": {"kind": "ImplicitStep"}}, sizes=(4, 4))
    assert "twice" in refusal(lambda: train(wide, twice))
    own = mlp()
    own.scale = nn.Parameter(torch.ones(2))
    assert "function that makes" in refusal(lambda: train(dataset_of(), own, learners=2))
    assert "learners must be at least 1" in refusal(lambda: train(dataset_of(), mlp(), learners=0))
    assert "seed" in refusal(lambda: train(dataset_of(), mlp(), seed=-1))
    (policy,) = train(dataset_of(), mlp())
    assert "[4] or [k, 4], got [3]" in refusal(lambda: policy.act(np.ones(3)))
    (afresh,) = train(dataset_of(normaliser="per-evaluation"), mlp())
    assert "statistics" in refusal(lambda: afresh.act(np.ones(4)))


def test_recipes_of_ones_own_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(floppy.torch._LOSSES, "huber")
    message = refusal(lambda: floppy.torch.train(dataset_of({"kind": "GradientStep", "loss": "huber"}), mlp()))
    assert "GradientStep with loss huber" in message
    assert "GradientStep, AdamSteps, ImplicitStep" in message


@pytest.mark.slow
def test_without_pytorch_one_sentence_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import floppy\n"
        "try:\n    floppy.torch\nexcept floppy.FloppyError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip().endswith("pip install 'floppy-rl[torch]'.")
