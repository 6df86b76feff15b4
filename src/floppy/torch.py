"""PyTorch modules as learners: `floppy.torch.train` takes a dataset's steps on an `nn.Module` of your own.

The only module of this library that imports PyTorch; nothing else imports it.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from floppy.cloning.adam import AdamSteps
from floppy.cloning.base import Cloning
from floppy.cloning.feature import LEAST_NORM, FeatureSteps
from floppy.cloning.gradient import GradientStep
from floppy.cloning.implicit import ImplicitStep
from floppy.dataset.file import DistilledDataset
from floppy.errors import FloppyError, one_line, shown
from floppy.fields import as_seed, whole_number
from floppy.play.normalise import CLIP
from floppy.spaces import ActionSpace, Continuous
from floppy.teach.codec import Lesson, unpack
from floppy.teach.policies import MAX_LEARNERS

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise FloppyError("floppy.torch needs PyTorch, which is not installed: pip install 'floppy-rl[torch]'.") from error


class TorchPolicy(nn.Module):
    """A trained module with all that it needs to act: statistics of observations, bounds, log standard deviations."""

    obs_mean: Tensor | None
    obs_var: Tensor | None

    def __init__(self, module: nn.Module, lesson: Lesson, log_std: Tensor) -> None:
        super().__init__()
        self.module = module
        self.observation_shape = lesson.dataset.observation_shape
        self.actions: ActionSpace = lesson.actions
        self.epsilon = lesson.dataset.epsilon
        self.per_evaluation_stats = lesson.per_evaluation_stats
        self.log_std = nn.Parameter(log_std)
        statistics = lesson.statistics
        for name, array in (
            ("obs_mean", None if statistics is None else statistics.mean),
            ("obs_var", None if statistics is None else statistics.var),
        ):
            self.register_buffer(name, None if array is None else _as_tensor(array, like=log_std))

    def forward(self, observations: Tensor) -> Tensor:
        """`[k, a]` logits or means for raw observations `[k, *obs]`, which it normalises.

        Where the dataset asks for statistics that start with zero in every evaluation they must be normalised already.
        """
        outputs: Tensor = self.module(self._normalise(observations))
        return outputs

    def act(self, observation: Any, generator: torch.Generator | None = None) -> Any:
        """What the policy does about an observation of the task, or about each of a batch.

        Args:
          observation: `[*obs]` or `[k, *obs]`, raw, as a tensor, a NumPy array or lists. Bytes (uint8) are pixels and
            are scaled to 0 .. 1.
          generator: by which the action is sampled. Without one it is the most likely.

        Returns:
          `[]` int or `[a]` float within its bounds, of a batch `[k]` or `[k, a]`; a tensor for a tensor, else NumPy's.

        Raises:
          FloppyError: for an observation of another shape.
        """
        if self.per_evaluation_stats:
            raise FloppyError(
                "The dataset asks for statistics of observations that start with zero in every evaluation, so this "
                "policy has none to normalise by: keep statistics of what you observe, and call its module."
            )
        given = observation if isinstance(observation, Tensor) else torch.as_tensor(np.asarray(observation))
        batch = given.ndim - len(self.observation_shape)
        if tuple(given.shape[batch:]) != self.observation_shape or not 0 <= batch <= 1:
            inner = ", ".join(map(str, self.observation_shape))
            raise FloppyError(f"The observation must be of shape [{inner}] or [k, {inner}], got {list(given.shape)}.")
        with torch.no_grad():
            outputs = self(given if batch else given[None])
            actions = self._choose(outputs, generator)
        actions = actions if batch else actions[0]
        return actions if isinstance(observation, Tensor) else actions.cpu().numpy()[()]

    def _normalise(self, observations: Tensor) -> Tensor:
        seen = observations.to(self.log_std)
        if observations.dtype == torch.uint8:
            seen = seen / 255.0
        if self.obs_mean is None or self.obs_var is None:
            return seen
        return ((seen - self.obs_mean) / torch.sqrt(self.obs_var + self.epsilon)).clamp(-CLIP, CLIP)

    def _choose(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        if isinstance(self.actions, Continuous):
            chosen = outputs
            if generator is not None:
                noise = torch.randn(outputs.shape, generator=generator, device=generator.device)
                chosen = outputs + torch.exp(self.log_std) * noise.to(outputs)
            if self.actions.half_width:
                centre, half = (
                    torch.tensor(each).to(outputs) for each in (self.actions.centre, self.actions.half_width)
                )
                chosen = centre + half * chosen
            low, high = (torch.tensor(bound).to(outputs) for bound in (self.actions.low, self.actions.high))
            return torch.clamp(chosen, low, high)
        if generator is None:
            return outputs.argmax(dim=-1)
        probabilities = torch.softmax(outputs, dim=-1).to(generator.device)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(outputs.device)


def train(
    dataset: DistilledDataset,
    module: nn.Module | Callable[[], nn.Module],
    *,
    learners: int = 1,
    seed: int = 0,
) -> list[TorchPolicy]:
    """Trains modules on a distilled dataset by the recipe on its card, with no environment involved.

    The steps are those of `floppy.train`: gradient steps, Adam's, the implicit step, which moves the last `nn.Linear`
    alone, or steps of the features before it.

    Args:
      dataset: what to learn from; neither a merged one nor one with an encoder, which built-in networks alone can take.
      module: maps observations `[k, *obs]` (of images `[k, rows, columns, channels]`), normalised as the card says,
        to `[k, a]`. It is copied and stays as it is. The first learner starts from its weights, the others from ones
        that its layers' `reset_parameters` draw. Or a function that makes a fresh module, for every learner.
      learners: how many.
      seed: of the weights that are drawn. PyTorch's own random state stays as it is.

    Returns:
      The trained policies.

    Raises:
      FloppyError: if the dataset or its recipe cannot be taught to a module, or the module does not fit the dataset.
    """
    learners, seed = whole_number("learners", learners, most=MAX_LEARNERS), as_seed(seed)
    lesson = unpack(dataset)
    if lesson.blocks or lesson.distilled.encoder:
        what = "is merged of several tasks" if lesson.blocks else "holds an encoder"
        raise FloppyError(f"The dataset {what}, which built-in networks alone can learn from: use floppy.train.")
    fit = _FITS.get(type(lesson.cloning))
    if fit is None or lesson.cloning.loss not in _LOSSES:
        kinds = ", ".join(kind.__name__ for kind in _FITS)
        raise FloppyError(
            f"The dataset's cloning is {type(lesson.cloning).__name__} with loss {lesson.cloning.loss}, modules of "
            f"PyTorch learn by {kinds} with {', '.join(_LOSSES)}: use floppy.train."
        )
    policies = []
    for fresh in _fresh_modules(module, learners, seed):
        learner = _Learner.of(fresh, lesson)
        fit(lesson.cloning, learner)
        policies.append(TorchPolicy(fresh, lesson, learner.log_std.detach()))
    return policies


# --- Fresh modules ---


def _fresh_modules(module: Any, learners: int, seed: int) -> list[nn.Module]:
    if not isinstance(module, nn.Module) and not callable(module):
        raise FloppyError(f"module must be an nn.Module or a function that makes one, got {shown(module)}.")
    modules: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(learners):
            if isinstance(module, nn.Module):
                fresh = copy.deepcopy(module)
                if number > 0:
                    _redraw(fresh)
            else:
                fresh = module()
            if not isinstance(fresh, nn.Module):
                raise FloppyError(f"module must make an nn.Module, it made {shown(fresh)}.")
            modules.append(fresh)
    return modules


def _redraw(module: nn.Module) -> None:
    """Draws new weights for all layers."""
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        elif next(part.parameters(recurse=False), None) is not None:
            raise FloppyError(
                f"{type(part).__name__} has weights and no reset_parameters to draw new ones: for several learners "
                "give a function that makes the module."
            )


# --- The steps ---


class _Learner(NamedTuple):
    """A module beside what it learns from."""

    module: nn.Module
    log_std: Tensor
    """`[a]`, or `[0]`; from 0."""
    observations: Tensor
    """`[k, *obs]`"""
    targets: Tensor
    """`[k, a]`"""
    target_log_std: Tensor
    rates: tuple[float, ...]
    """Those of the cloning, in its own order."""

    @property
    def rate(self) -> float:
        """The cloning's only rate."""
        (rate,) = self.rates
        return rate

    @classmethod
    def of(cls, module: nn.Module, lesson: Lesson) -> "_Learner":
        """The learner, its output's shape checked."""
        first = next(module.parameters(), None)
        if first is None:
            raise FloppyError("The module has no weights to train: give one with layers.")
        distilled = lesson.distilled
        observations, targets, target_log_std = (
            _as_tensor(array, like=first) for array in (distilled.observations, distilled.targets, distilled.log_std)
        )
        log_std = torch.zeros_like(target_log_std, requires_grad=True)
        rates = tuple(map(float, np.ravel(distilled.inner_rate)))
        learner = cls(module, log_std, observations, targets, target_log_std, rates)
        learner.check()
        return learner

    def check(self) -> None:
        """Runs the module once.

        Raises:
          FloppyError: if it fails, or gives something else than `[k, a]`.
        """
        try:
            with torch.no_grad():
                outputs = self.module(self.observations)
        except Exception as error:  # the module's own code may raise anything
            raise FloppyError(
                f"The module fails on observations {list(self.observations.shape)} ({one_line(error)}): mend it."
            ) from error
        if getattr(outputs, "shape", None) != self.targets.shape:
            raise FloppyError(
                f"The module gives {list(getattr(outputs, 'shape', []))} for {len(self.targets)} observations, the "
                f"dataset needs {list(self.targets.shape)}: let its last layer have {self.targets.shape[1]} outputs."
            )

    def parameters(self) -> list[Tensor]:
        """All that is trained."""
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        return [*weights, self.log_std] if self.log_std.numel() else list(weights)

    def gradients(self, loss: str) -> list[Tensor]:
        """Of the loss, one per parameter."""
        value = _LOSSES[loss](self.module(self.observations), self.log_std, self.targets, self.target_log_std)
        return list(torch.autograd.grad(value, self.parameters(), allow_unused=True, materialize_grads=True))


def _take_gradient_steps(cloning: GradientStep, learner: _Learner) -> None:
    for _ in range(cloning.steps):
        gradients = learner.gradients(cloning.loss)
        with torch.no_grad():
            for weight, gradient in zip(learner.parameters(), gradients, strict=True):
                weight -= learner.rate * gradient


def _take_adam_steps(cloning: AdamSteps, learner: _Learner, decays: tuple[float, float] = (0.9, 0.999)) -> None:
    """Adam as `AdamSteps` takes it: gradients clipped by their norm, a term inside the square root."""
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in learner.parameters()]
    for step in range(cloning.steps):
        gradients = learner.gradients(cloning.loss)
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        scale = cloning.max_grad_norm / max(norm, cloning.max_grad_norm) if cloning.max_grad_norm > 0 else 1.0
        rate = learner.rate * ((cloning.steps - step) / cloning.steps if cloning.anneal else 1.0)
        with torch.no_grad():
            for weight, gradient, (first, second) in zip(learner.parameters(), gradients, moments, strict=True):
                first.lerp_(scale * gradient, 1 - decays[0])
                second.lerp_((scale * gradient) ** 2, 1 - decays[1])
                mean, square = (m / (1 - d ** (step + 1)) for m, d in zip((first, second), decays, strict=True))
                weight -= rate * mean / (torch.sqrt(square + cloning.eps_root) + cloning.eps)


def _take_implicit_step(cloning: ImplicitStep, learner: _Learner) -> None:
    """See `ImplicitStep`: one linear system with an unknown per example, here solved in float64."""
    del cloning
    layer, features = _output_layer(learner)
    with torch.no_grad():
        phi, missing = features.double(), (learner.targets - layer(features)).double()
        factor = 2.0 * learner.rate / learner.targets.numel()
        gram = phi @ phi.T + (0.0 if layer.bias is None else 1.0)
        residual = torch.linalg.solve(torch.eye(len(gram)).to(gram) + factor * gram, missing)
        layer.weight.add_((factor * residual.T @ phi).to(layer.weight))
        if layer.bias is not None:
            layer.bias.add_((factor * residual.sum(dim=0)).to(layer.bias))
        if learner.log_std.numel():
            pull = 2.0 * learner.rate / learner.log_std.numel()
            learner.log_std.copy_((learner.log_std + pull * learner.target_log_std) / (1.0 + pull))


def _take_feature_steps(cloning: FeatureSteps, learner: _Learner) -> None:
    """Gradient steps of all layers but the output layer, which then takes the implicit step."""
    kernel_rate, bias_rate, readout_rate = learner.rates
    layer, _ = _output_layer(learner)
    held = {id(weight) for weight in (*layer.parameters(), learner.log_std)}
    for _ in range(cloning.steps):
        pairs = zip(learner.parameters(), learner.gradients(cloning.loss), strict=True)
        hidden = [(weight, gradient) for weight, gradient in pairs if id(weight) not in held]
        norm = max(LEAST_NORM, sum(float(gradient.square().sum()) for _, gradient in hidden) ** 0.5)
        with torch.no_grad():
            for weight, gradient in hidden:
                rate = kernel_rate if weight.ndim > 1 else bias_rate
                weight -= rate * gradient / (norm if cloning.unit_steps else 1.0)
    _take_implicit_step(ImplicitStep(), learner._replace(rates=(readout_rate,)))


def _output_layer(learner: _Learner) -> tuple[nn.Linear, Tensor]:
    """The last `nn.Linear`, and what it reads of the examples: `[k, f]`."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda layer, read, gave: calls.append((layer, read[0], gave)))
        for part in learner.module.modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        with torch.no_grad():
            outputs = learner.module(learner.observations)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or calls[-1][2].shape != outputs.shape or not torch.equal(calls[-1][2], outputs):
        raise FloppyError(
            "The implicit step moves the output layer, and the module's output is not that of an nn.Linear: let it end "
            "in one."
        )
    if sum(layer is calls[-1][0] for layer, _, _ in calls) > 1:
        raise FloppyError(
            "The implicit step moves the output layer, which the module uses twice: give it a layer of its own."
        )
    return calls[-1][:2]


# --- Losses, as in cloning/losses.py ---


def _mse(output: Tensor, log_std: Tensor, targets: Tensor, target_log_std: Tensor) -> Tensor:
    loss = ((output - targets) ** 2).mean()
    return loss + ((log_std - target_log_std) ** 2).mean() if log_std.numel() else loss


def _huber(output: Tensor, log_std: Tensor, targets: Tensor, target_log_std: Tensor) -> Tensor:
    loss = 2.0 * nn.functional.huber_loss(output, targets)
    return loss + 2.0 * nn.functional.huber_loss(log_std, target_log_std) if log_std.numel() else loss


def _cross_entropy(output: Tensor, log_std: Tensor, targets: Tensor, target_log_std: Tensor) -> Tensor:
    del log_std, target_log_std
    return -(targets * torch.log_softmax(output, dim=-1)).sum(dim=-1).mean()


def _gaussian_nll(output: Tensor, log_std: Tensor, targets: Tensor, target_log_std: Tensor) -> Tensor:
    del target_log_std
    z = (targets - output) / torch.exp(log_std)
    return (0.5 * z**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1).mean()


_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "mse": _mse,
    "cross-entropy": _cross_entropy,
    "gaussian-nll": _gaussian_nll,
    "huber": _huber,
}

_FITS: dict[type[Cloning], Callable[[Any, _Learner], None]] = {
    GradientStep: _take_gradient_steps,
    AdamSteps: _take_adam_steps,
    ImplicitStep: _take_implicit_step,
    FeatureSteps: _take_feature_steps,
}
"""How each kind of cloning is taken on a module, which changes in place."""


def _as_tensor(array: Any, like: Tensor) -> Tensor:
    """A copy of an array with the type and on the device of a tensor."""
    return torch.tensor(np.asarray(array)).to(like.detach())


__all__: Sequence[str] = ("TorchPolicy", "train")
