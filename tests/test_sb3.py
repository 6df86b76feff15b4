"""A PPO of Stable-Baselines3 begins with a cloned policy's own distribution of actions, and goes on from it."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from probes import hand_dataset

import floppy
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.play.normalise import normalise
from floppy.spaces import Continuous

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed (extra [sb3])")
torch = pytest.importorskip("torch")

SMALL = LearnerDistribution(width=(16, 16), depth=(2, 2), initialiser=("xavier",), activation="gelu")
BOX = {"kind": "continuous", "size": 2, "low": [-2.0, 0.0], "high": [2.0, 10.0]}
UNITS = BOX | {"centre": [0.0, 5.0], "half_width": [2.0, 5.0]}
STATISTICS = {"obs_mean": np.array([1.0, 0.0, -1.0, 2.0]), "obs_var": np.array([4.0, 1.0, 0.0, 1.0])}
QUICK = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu"}
OBSERVATIONS = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


class Box(gymnasium.Env):  # type: ignore[misc]
    """Random observations, two continuous actions."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    action_space = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))

    def reset(self, **given: Any) -> Any:
        super().reset(**given)
        return self.np_random.normal(size=4).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        return self.np_random.normal(size=4).astype(np.float32), float(action[0]), False, True, {}


def dataset_of(card: dict[str, Any], learners: Any = SMALL, **tensors: Any) -> floppy.DistilledDataset:
    return hand_dataset({"learners": [dataclasses.asdict(learners)]} | card, **tensors)


def cases() -> dict[str, tuple[floppy.DistilledDataset, Any]]:
    continuous = {"log_std": [-1.0, 0.5], "inner_rate": 0.2}
    return {
        "discrete": (dataset_of({"normaliser": "frozen"}, **STATISTICS), "CartPole-v1"),
        "plain": (dataset_of({}), "CartPole-v1"),
        "units": (dataset_of({"actions": UNITS, "normaliser": "frozen", "format": 3}, **continuous, **STATISTICS), Box),
        "raw": (dataset_of({"actions": BOX}, **continuous), Box),
    }


@pytest.mark.thorough(all_but=["discrete", "units"])
@pytest.mark.parametrize("case", ["discrete", "plain", "units", "raw"])
def test_the_distribution_of_actions_is_the_cloned_policys(case: str) -> None:
    dataset, env = cases()[case]
    model = floppy.sb3.warm_start(dataset, env() if isinstance(env, type) else env, 3, **QUICK)
    policy = floppy.train(dataset, 3)[0]
    seen = OBSERVATIONS.copy()
    seen[0] *= 1e6  # clipped
    outputs = jax.jit(lambda w, o: policy.network.apply(w, normalise(policy.statistics, o)))(policy.weights, seen)
    found = model.policy.get_distribution(torch.as_tensor(seen)).distribution
    if isinstance(actions := policy.network.actions, Continuous):
        half = np.array(actions.half_width or (1.0, 1.0))
        np.testing.assert_allclose(found.mean.detach(), actions.of_task(outputs), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            found.stddev[0].detach(), np.exp(np.asarray(policy.weights.log_std)) * half, rtol=1e-5
        )
    else:
        np.testing.assert_allclose(found.probs.detach(), jax.nn.softmax(outputs), rtol=1e-5, atol=1e-5)


def test_it_goes_on_training_and_is_loaded_again(tmp_path: Path) -> None:
    from stable_baselines3 import PPO

    dataset, _ = cases()["units"]
    model = floppy.sb3.warm_start(dataset, Box(), critic_steps=8, **QUICK)
    fresh = floppy.sb3.warm_start(dataset, Box(), **QUICK)

    def actor_and_critic(of: Any) -> tuple[Any, Any]:
        return of.policy.action_net.weight.detach().clone(), of.policy.value_net.weight.detach().clone()

    held, taught = actor_and_critic(model)
    assert model.num_timesteps == 8
    assert torch.equal(held, actor_and_critic(fresh)[0])
    assert not torch.equal(taught, actor_and_critic(fresh)[1])
    mean = model.policy.features_extractor.mean.clone()
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 24
    assert not torch.equal(held, actor_and_critic(model)[0]), "the actor learns again"
    assert torch.equal(mean, model.policy.features_extractor.mean), "statistics stay"
    model.save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Stable-Baselines3's own
        again = PPO.load(tmp_path / "model", device="cpu")
    for deterministic in (True, False):
        torch.manual_seed(0)
        first = model.predict(OBSERVATIONS, deterministic=deterministic)[0]
        torch.manual_seed(0)
        np.testing.assert_array_equal(first, again.predict(OBSERVATIONS, deterministic=deterministic)[0])


def test_another_range_of_actions_is_another_space() -> None:
    dataset = dataset_of({"actions": BOX | {"high": [2.0, 9.0]}}, log_std=[0.0, 0.0])
    with pytest.raises(FloppyError, match="give an environment with the same spaces"):
        floppy.sb3.warm_start(dataset, Box(), **QUICK)


@pytest.mark.parametrize(
    ("card", "env", "options", "wanted"),
    [
        ({}, "Acrobot-v1", {}, "observations of shape \\[4\\] and 2 discrete actions, env has Box"),
        ({"actions": BOX}, "CartPole-v1", {}, "2 continuous actions"),
        ({}, "CartPole-v99", {}, "refuses env or an option"),
        ({}, "CartPole-v1", {"use_sde": True}, "With use_sde actions are drawn in another way"),
        ({}, "CartPole-v1", {"n_steps": 1}, "Stable-Baselines3 refuses env or an option"),
        ({}, "CartPole-v1", {"policy_kwargs": {"net_arch": [3]}}, "holds net_arch as a list"),
        ({}, "CartPole-v1", {"policy_kwargs": {"activation_fn": None}}, "holds activation_fn, which is"),
        ({"normaliser": "per-evaluation"}, "CartPole-v1", {}, "with_statistics"),
    ],
)
def test_what_does_not_fit_is_refused(card: dict[str, Any], env: str, options: dict[str, Any], wanted: str) -> None:
    more = {"log_std": [0.0, 0.0]} if "actions" in card else {}
    with pytest.raises(FloppyError, match=wanted):
        floppy.sb3.warm_start(dataset_of(card, **more), env, **{"device": "cpu"} | options)
