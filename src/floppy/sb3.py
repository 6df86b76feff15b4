"""Stable-Baselines3: `floppy.sb3.warm_start` makes a PPO whose actor begins as a policy cloned from a dataset.

Nothing else imports this module, Stable-Baselines3 or Gymnasium for it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from floppy.dataset.file import DistilledDataset
from floppy.errors import FloppyError, one_line, shown
from floppy.fields import as_seed, whole_number
from floppy.learner.network import Learners
from floppy.play.normalise import CLIP
from floppy.teach.policies import PlainPolicy, train

try:
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from torch import Tensor, nn
except ImportError as error:
    raise FloppyError(
        "floppy.sb3 needs Stable-Baselines3, which is not installed: pip install 'floppy-rl[sb3]'."
    ) from error


class FrozenNormaliser(BaseFeaturesExtractor):
    """Observations `[k, *obs]` as the policy's layers read them: `(o - mean) / deviation`, clipped to ±10, flattened.

    Mean and deviation are those of the dataset and are never trained. They are saved and loaded with the model; the
    critic sees the same.
    """

    mean: Tensor
    deviation: Tensor
    clip: Tensor

    def __init__(self, observation_space: gymnasium.spaces.Box) -> None:
        super().__init__(observation_space, features_dim=int(np.prod(observation_space.shape)))
        self.scale = 255.0 if observation_space.dtype == np.uint8 else 1.0
        for name, fill in (("mean", 0.0), ("deviation", 1.0)):
            self.register_buffer(name, torch.full(observation_space.shape, fill))
        self.register_buffer("clip", torch.tensor(torch.inf))

    def forward(self, observations: Tensor) -> Tensor:
        """`[k, f]` for observations `[k, *obs]`."""
        seen = (observations / self.scale - self.mean) / self.deviation
        return torch.clamp(seen, -self.clip, self.clip).flatten(1)


def warm_start(
    dataset: DistilledDataset,
    env: Any,
    seed: int = 0,
    *,
    distribution: Learners | str | None = None,
    critic_steps: int = 0,
    **options: Any,
) -> PPO:
    """A PPO of Stable-Baselines3 that begins where a dataset leads to in milliseconds, and goes on by `.learn`.

    A fresh policy is cloned from the dataset. The actor has its layers, activation, weights and, for continuous
    actions, standard deviations, in the task's units; observations are normalised as the dataset says, inside of the
    model, by statistics that stay as they are. So its distribution of actions is the cloned policy's own. The critic
    is fresh.

    Args:
      dataset: with learners of dense layers; of a merged dataset there is none such.
      env: an environment, a vector environment or a Gymnasium id, with the dataset's spaces.
      seed: of the policy's initial weights, and of PPO.
      distribution: how the fresh policy is drawn, as for `floppy.train`.
      critic_steps: environment steps in which the critic alone learns, before the model is given back: an ignorant
        critic leads a good actor away. They count as `model.num_timesteps`.
      **options: of `stable_baselines3.PPO`, such as `learning_rate` or `tensorboard_log`; `policy_kwargs` may change
        all but the actor.

    Returns:
      The model.

    Raises:
      FloppyError: for a dataset or a network that has no such form, and for spaces that are not the dataset's.
    """
    seed, critic_steps = as_seed(seed), whole_number("critic_steps", critic_steps, least=0)
    policy = train(dataset, seed, distribution=distribution)[0]
    plain = policy.plain("Stable-Baselines3")
    if any(layer.convolution for layer in plain.layers):
        raise FloppyError("The dataset's learners have convolutions, warm_start makes dense actors: give another one.")
    model = _model(env, plain, seed, options)
    _check_spaces(model, policy.network.observation_shape, policy.network.actions)
    _load(model.policy, plain)
    if critic_steps:
        _teach_critic(model, critic_steps)
    return model


def _model(env: Any, plain: PlainPolicy, seed: int, options: Mapping[str, Any]) -> PPO:
    if options.get("use_sde"):
        raise FloppyError("With use_sde actions are drawn in another way than the cloned policy does: leave it out.")
    *hidden, _ = plain.layers
    given = dict(options.get("policy_kwargs") or {})
    taken = sorted({"activation_fn", "features_extractor_class", "normalize_images"} & given.keys())
    if taken or isinstance(given.get("net_arch"), list):
        what = ", ".join(taken) or "net_arch as a list"
        raise FloppyError(f"policy_kwargs holds {what}, which is the cloned policy's own: leave it out.")
    sizes = [len(layer.bias) for layer in hidden]
    own = {
        "net_arch": {"vf": sizes or [64, 64]} | dict(given.get("net_arch") or {}) | {"pi": sizes},
        "activation_fn": _ACTIVATIONS[hidden[0].activation if hidden else "tanh"],
        "features_extractor_class": FrozenNormaliser,
        "normalize_images": False,
    }
    try:
        return PPO("MlpPolicy", env, **{"seed": seed} | dict(options) | {"policy_kwargs": given | own})
    except (AssertionError, TypeError, ValueError, gymnasium.error.Error) as error:
        raise FloppyError(f"Stable-Baselines3 refuses env or an option ({one_line(error)}): correct it.") from error


def _check_spaces(model: PPO, shape: tuple[int, ...], actions: Any) -> None:
    """Checks that the environment has the dataset's spaces."""
    space = model.action_space
    has_actions = (
        isinstance(space, gymnasium.spaces.Box)
        and space.shape == (actions.size,)
        and np.allclose([space.low, space.high], [actions.low, actions.high])
        if actions.log_std_size
        else isinstance(space, gymnasium.spaces.Discrete) and (space.n, space.start) == (actions.size, 0)
    )
    if model.observation_space.shape != shape or not has_actions:
        raise FloppyError(
            f"The dataset is for observations of shape {list(shape)} and {actions.size} {actions.kind} actions, env "
            f"has {shown(model.observation_space)} and {shown(space)}: give an environment with the same spaces."
        )


def _load(policy: Any, plain: PlainPolicy) -> None:
    """Puts the layers into the actor."""
    linear = [part for part in policy.mlp_extractor.policy_net if isinstance(part, nn.Linear)]
    with torch.no_grad():
        for part, layer in zip([*linear, policy.action_net], plain.layers, strict=True):
            part.weight.copy_(torch.tensor(layer.kernel.T))
            part.bias.copy_(torch.tensor(layer.bias))
        if plain.log_std.size:
            policy.log_std.copy_(torch.tensor(plain.log_std))
        if plain.mean is not None and plain.deviation is not None:
            normaliser = policy.features_extractor
            normaliser.mean.copy_(torch.tensor(plain.mean))
            normaliser.deviation.copy_(torch.tensor(plain.deviation))
            normaliser.clip.fill_(CLIP)


def _teach_critic(model: PPO, steps: int) -> None:
    """Lets PPO go on with the actor held."""
    policy: Any = model.policy
    parts = (policy.mlp_extractor.policy_net, policy.action_net)
    held = [weight for part in parts for weight in part.parameters()]
    held += [policy.log_std] if hasattr(policy, "log_std") else []
    for weight in held:
        weight.requires_grad_(False)
    model.learn(steps)
    for weight in held:
        weight.requires_grad_(True)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": functools.partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "elu": nn.ELU,
}
"""As in `floppy.learner.activations`."""

__all__ = ("FrozenNormaliser", "warm_start")
