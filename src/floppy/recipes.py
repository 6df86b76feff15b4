"""Default configurations per task and outer loop, chosen by measurement (docs/results)."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from floppy.cloning import AdamSteps, Cloning, GradientStep, ImplicitStep
from floppy.distill import DistillConfig
from floppy.errors import FloppyError, shown
from floppy.learners import NATURE_DISTRIBUTION, PYRAMID_DISTRIBUTION, parse_distributions
from floppy.outer import PPMO, HaDES, Supervised
from floppy.tasks.base import Continuous, HostTask, SupervisedTask, Task
from floppy.tasks.ndcartpole import NDCartPole
from floppy.tasks.registry import full_task_id, make_task
from floppy.train import CLONING_KINDS

OuterLoopConfig = PPMO | HaDES | Supervised

LARGE_IMAGE = 16
"""Pixels a side; MNIST's images have 28, scikit-learn's digits 8."""
ROBUST_DISTRIBUTIONS = "lambda,ortho1,xavier,xavier1,width=32..128,random-depth"
"""Those of the PPMO paper's Table 1, but for the width: 128 is as robust as 256 at a quarter of the arithmetic."""


def _ppmo(task: str, examples: int | None = None) -> DistillConfig:
    """The corrected PPMO with several learners per outer step, of the size that suits the task."""
    known = make_task(task)
    if isinstance(known.actions, Continuous):
        return _ppmo_continuous(known, examples)
    if known.task_id.startswith("ale/"):
        return _ppmo_atari(known, examples)
    if len(known.observation_shape) == 3:
        return _ppmo_images(task, examples)
    config = DistillConfig(task)
    if not isinstance(known, NDCartPole):
        return dataclasses.replace(config, examples=16 if examples is None else examples)
    # More steps for more dimensions, smaller ones for few examples.
    least = known.dimensions + 1  # the papers' k_min = ceil(c / 2) + 1 for c = 2 N actions
    examples = least if examples is None else examples
    steps, rate = max(300, 400 * (known.dimensions - 1)), 1e-2
    if examples < least:  # with so few a fast run easily sticks in a local optimum
        steps, rate = max(400, steps), 1e-3 if known.dimensions == 1 else 2e-3
    return dataclasses.replace(config, examples=examples, outer_steps=steps, outer=PPMO(rate=rate))


def _ppmo_continuous(task: Task, examples: int | None) -> DistillConfig:
    """Brax and MuJoCo: observations and rewards in units of their own spread, and no bonus for random actions."""
    is_slow = isinstance(task, HostTask)
    return DistillConfig(
        task.task_id,
        examples=64 if examples is None else examples,
        outer_steps=1500,
        evaluate_every=50,
        selection_learners=16,
        selection_episodes=4,
        outer=PPMO(
            learners=4,
            environments=16,
            horizon=64,
            minibatch_size=1024,
            rate=1e-3,
            critic_rate=1e-3,
            entropy_bonus=0.0,
            least_std=0.3,
            normalise_observations=True,
            normalise_rewards=True,
        ),
        score_learners=20 if is_slow else 100,
        score_episodes=5 if is_slow else 10,
    )


def _ppmo_images(task: str, examples: int | None) -> DistillConfig:
    """MinAtar's size of image. One step from a fresh network does not generalise over them: give an encoder layer."""
    return DistillConfig(
        task,
        examples=16 if examples is None else examples,
        outer_steps=1500,
        evaluate_every=50,
        distribution="width=128:depth=1:activation=relu",
        selection_learners=16,
        selection_episodes=4,
        outer=PPMO(
            learners=16,
            environments=8,
            horizon=64,
            minibatch_size=2048,
            rate=5e-3,
            critic_rate=5e-3,
            entropy_bonus=0.02,
        ),
    )


def _ppmo_atari(task: Task, examples: int | None) -> DistillConfig:
    """The PPMO paper's network and number of examples.

    Games are learnt from many frames, so that few network passes are spent on each: one learner, one epoch, a critic
    without convolutions.
    """
    least = math.ceil(task.actions.size / 2) + 1
    return DistillConfig(
        task.task_id,
        examples=least if examples is None else examples,
        outer_steps=1000,
        evaluate_every=40,
        distribution=NATURE_DISTRIBUTION,
        initial_rate=10.0,  # with 1 policies hardly moved, with 300 they were deterministic after one step
        initial_examples="random-policy",
        selection_learners=8,
        selection_episodes=1,
        score_learners=10,
        score_episodes=5,
        outer=PPMO(
            learners=1,
            environments=16,
            horizon=64,
            epochs=1,
            minibatch_size=256,
            rate=1.5e-3,
            encoder_rate=1.5e-4,  # one step moves all its weights, and the logits by their sum
            critic_rate=1e-3,
            anneal=False,  # twenty minutes are short: games are still being learnt in the end
            target_kl=0.02,
            critic_network="mlp",
            normalise_observations=True,  # one game's frames are a hundred times darker than another's
            normalise_rewards=True,
        ),
    )


def _ppmo_robust(task: str, examples: int | None = None) -> DistillConfig:
    """The same over random widths, depths and initialisers, as in the PPMO paper's Table 1."""
    if len(shape := make_task(task).observation_shape) == 3:
        raise FloppyError(
            f"Recipe ppmo-robust was asked for with images {shape}: its networks are dense ones, leave --recipe out."
        )
    config = _ppmo(task, examples)
    assert isinstance(config.outer, PPMO)
    # The six distributions share them equally.
    outer = _changed(
        config.outer, learners=config.outer.learners * 3 // 2, minibatch_size=config.outer.minibatch_size * 3 // 2
    )
    return dataclasses.replace(
        config, distribution=ROBUST_DISTRIBUTIONS, outer=outer, outer_steps=600, evaluate_every=50
    )


def _ppmo_paper(task: str, examples: int | None = None) -> DistillConfig:
    """The PPMO paper's constants (section 5.1), with this library's corrections."""
    is_continuous = isinstance(make_task(task).actions, Continuous)
    outer = PPMO(
        learners=1,
        environments=10,
        horizon=200,
        minibatch_size=512,
        rate=2.5e-4,
        critic_rate=2.5e-4,
        anneal=False,
        clip=0.1 if is_continuous else 0.2,
        normalise_observations=is_continuous,
    )
    return dataclasses.replace(
        _ppmo(task, examples),
        outer=outer,
        initial_rate=0.02,
        initial_examples="normal",
        outer_steps=3000,
        evaluate_every=50,
    )


def _ppmo_published(task: str, examples: int | None = None) -> DistillConfig:
    """The PPMO paper's constants and the published code's errors, to show the difference they make."""
    config = _ppmo_paper(task, examples)
    return dataclasses.replace(config, outer=_changed(config.outer, published_errors=True))


def _hades(task: str, examples: int | None = None) -> DistillConfig:
    """HaDES-R that finishes on a CPU of two cores: narrow learners, few Adam steps, a small population."""
    known = make_task(task)
    if isinstance(known, SupervisedTask):
        return _hades_labelled(known, examples)
    if isinstance(known, NDCartPole):
        return _hades_cartpole(known, examples)
    if isinstance(known.actions, Continuous):
        return _hades_continuous(task, examples)
    return DistillConfig(
        task,
        examples=16 if examples is None else examples,
        outer_steps=1000,
        distribution="width=64:activation=relu",
        initial_rate=0.05,
        cloning=AdamSteps(loss="cross-entropy", steps=8, max_grad_norm=0.0),
        targets="one-hot",
        initial_examples="zeros",
        outer=HaDES(
            population=256,
            environments=2,
            horizon=500,
            sigma=0.2,
            rate=0.02,
            rate_decay=0.2,
            normalise_observations=True,
        ),
        selection_learners=32,
    )


def _hades_cartpole(task: NDCartPole, examples: int | None) -> DistillConfig:
    return DistillConfig(
        task.task_id,
        examples=task.dimensions + 1 if examples is None else examples,
        outer_steps=60 * task.dimensions,
        evaluate_every=20,
        initial_rate=0.03,
        cloning=AdamSteps(loss="cross-entropy", steps=32),
        outer=HaDES(sigma=0.3, rate=0.1),
    )


def _hades_continuous(task: str, examples: int | None) -> DistillConfig:
    return DistillConfig(
        task,
        examples=16 if examples is None else examples,
        outer_steps=500,
        distribution="width=64",
        initial_rate=0.02,
        cloning=AdamSteps(loss="gaussian-nll", steps=100),
        outer=HaDES(population=32, environments=1, sigma=0.2, rate=0.05, normalise_observations=True),
        selection_learners=16,
    )


def _hades_brax(task: str, examples: int | None = None) -> DistillConfig:
    """HaDES-R as in the paper's Table 2 for Brax, with a normaliser that is frozen into the file in the end."""
    quick = ("hopper", "inverted_double_pendulum")
    name = full_task_id(task).rpartition("/")[2]
    return DistillConfig(
        task,
        examples=64 if examples is None else examples,
        outer_steps=2000,
        evaluate_every=10,
        distribution="width=512",
        initial_rate=0.005,
        learned_rate=False,
        initial_examples="zeros",
        cloning=AdamSteps(loss="gaussian-nll", steps=200 if name in quick else 400, eps_root=0.0),
        outer=HaDES(population=2048, sigma=0.03, rate=0.05, horizon=1024, normalise_observations=True),
        selection_learners=16,
    )


def _hades_minatar(task: str, examples: int | None = None) -> DistillConfig:
    """HaDES-R as in the paper's Table 3 for MinAtar, but for episodes as long as the game's own."""
    return DistillConfig(
        task,
        examples=16 if examples is None else examples,
        outer_steps=5000,
        evaluate_every=50,
        distribution="width=512:activation=relu",
        initial_rate=0.03,
        learned_rate=False,
        cloning=AdamSteps(loss="cross-entropy", steps=64, max_grad_norm=0.0, eps_root=0.0),
        targets="one-hot",
        outer=HaDES(
            strategy="SNES", population=2048, environments=8, sigma=0.5, antithetic=False, normalise_observations=True
        ),
        selection_learners=16,
    )


def _supervised(task: str, examples: int | None = None) -> DistillConfig:
    """Meta-gradients through the cloning, from the class means, with learned soft labels.

    On large images the learners are convolutions that stay as they are drawn, and an implicit step.
    """
    known = make_task(task)
    if not isinstance(known, SupervisedTask):
        raise FloppyError(
            f"Recipe supervised was asked for with {known.task_id}, which has no labelled examples: choose ppmo or "
            "hades."
        )
    held_out, test = (len(known.labelled(split).labels) for split in ("held-out", "test"))
    config = DistillConfig(
        task,
        examples=known.actions.size if examples is None else examples,
        evaluate_every=50,
        distribution="width=64:depth=1:activation=relu",
        initial_rate=0.1,
        cloning=GradientStep(loss="cross-entropy", steps=20),
        initial_examples="class-means",
        outer=Supervised(),
        selection_learners=8,
        selection_episodes=held_out,
        score_learners=20,
        score_episodes=test,
    )
    if min(known.observation_shape[:2]) < LARGE_IMAGE:
        return config
    # Random convolutions with instance norm, and the best output layer on them, beat all networks trained through.
    return dataclasses.replace(
        config,
        outer_steps=1500,
        evaluate_every=100,
        distribution=PYRAMID_DISTRIBUTION,
        initial_rate=600.0,
        cloning=ImplicitStep(),
        outer=Supervised(learners=1, batch_size=256, rate=5e-2),
        selection_learners=4,
    )


def _hades_labelled(task: SupervisedTask, examples: int | None) -> DistillConfig:
    """Evolution of images from the class means, with noise alike in neighbouring pixels.

    Labels are fixed as published, but for large images, whose output layer is solved for; the smaller noise of their
    logits leaves most of the differences in fitness to the pixels.
    """
    config = _supervised(task.task_id, examples)
    outer = HaDES(population=64, initialisations=1, environments=1024, sigma=0.05, rate=0.02, smoothness=1.0)
    if not isinstance(config.cloning, ImplicitStep):
        return dataclasses.replace(config, targets="one-hot", outer=outer)
    outer = dataclasses.replace(
        outer, population=256, environments=512, sigma=0.1, rate=0.03, rate_decay=0.05, target_noise=0.25
    )
    return dataclasses.replace(config, outer_steps=2400, evaluate_every=100, outer=outer)


RECIPES: dict[str, Callable[[str, int | None], DistillConfig]] = {
    "ppmo": _ppmo,
    "ppmo-robust": _ppmo_robust,
    "ppmo-paper": _ppmo_paper,
    "ppmo-published": _ppmo_published,
    "hades": _hades,
    "hades-brax": _hades_brax,
    "hades-minatar": _hades_minatar,
    "supervised": _supervised,
}
"""Recipes by name; each takes a task id and a number of examples (None: the recipe's own)."""


def check_recipe(name: str) -> None:
    """Refuses an unknown name."""
    if name not in RECIPES:
        raise FloppyError(f"Recipe {shown(name)} was asked for: choose from {', '.join(RECIPES)}.")


def recipe(
    task: str,
    name: str = "",
    *,
    examples: int | None = None,
    cloning: str | Cloning | None = None,
    strategy: str | None = None,
    **changes: Any,
) -> DistillConfig:
    """The configuration of a recipe for a task.

    Args:
      task: id or short name.
      name: of the recipe, see `RECIPES`; ppmo, hades and supervised are the defaults of the outer loops, supervised
        that of labelled images and ppmo that of all other tasks.
      examples: how many, in place of the recipe's number.
      cloning: in place of the recipe's: a whole one, or a kind, GradientStep, AdamSteps or ImplicitStep, with defaults
        of its own.
      strategy: of evolution, in place of the recipe's, with that strategy's own rate.
      **changes: fields of `DistillConfig` to replace.

    Returns:
      The configuration.

    Raises:
      FloppyError: for an unknown name or a value that is not allowed.
    """
    name = name or ("supervised" if isinstance(make_task(task), SupervisedTask) else "ppmo")
    check_recipe(name)
    config = RECIPES[name](task, examples or None)
    if examples == 0:  # only an encoder of every layer, which is among the changes, can do without
        changes = {"examples": 0} | changes
    if isinstance(cloning, str) and cloning != type(config.cloning).__name__:
        changes = _cloning_defaults(cloning) | changes
    elif cloning is not None and not isinstance(cloning, str):
        changes = {"cloning": cloning} | changes
    unknown = sorted(changes.keys() - {field.name for field in dataclasses.fields(config)})
    if unknown:
        raise FloppyError(
            f"A configuration has no {', '.join(unknown)}: give fields of DistillConfig; for an outer loop's own, "
            "replace outer by dataclasses.replace(config.outer, ...)."
        )
    if strategy is not None:
        changes = {"outer": _with_strategy(config.outer, strategy)} | changes
    return dataclasses.replace(config, **changes)


def ppo_baseline(task: str, **changes: Any) -> DistillConfig:
    """Plain PPO on a task: PPMO whose encoder holds every layer."""
    config = recipe(task, "ppmo")
    assert isinstance(config.outer, PPMO)
    environments = config.outer.learners * config.outer.environments  # all learners are the same
    rate = config.outer.encoder_rate or min(config.outer.rate, 2e-3)
    outer = _changed(config.outer, learners=1, environments=environments, rate=rate, encoder_rate=0.0)
    plain: dict[str, Any] = {
        "examples": 0,
        "initial_examples": "normal",
        "encoder_layers": _layers(config),
        "outer": outer,
    }
    return dataclasses.replace(config, **(plain | changes))


def neuroevolution_baseline(task: str, **changes: Any) -> DistillConfig:
    """Direct neuroevolution of a policy's weights: HaDES whose encoder holds every layer."""
    config = recipe(task, "hades")
    changed = {} if isinstance(make_task(task), SupervisedTask) else {"population": 256, "environments": 2}
    outer = _changed(config.outer, initialisations=1, sigma=0.05, rate=0.02, smoothness=0.0, **changed)
    plain: dict[str, Any] = {
        "examples": 0,
        "encoder_layers": _layers(config),
        "targets": "learned",
        "outer": outer,
    }
    return dataclasses.replace(config, **(plain | changes))


def apply_budget(config: DistillConfig, budget: str) -> tuple[DistillConfig, float | None]:
    """The configuration and time limit (s) of `--budget`: `500steps`, `60s`, `10m` or `2h`."""
    seconds = {"s": 1.0, "m": 60.0, "h": 3600.0}
    if not budget:
        return config, None
    if re.fullmatch(r"0*[1-9]\d{0,8}steps", budget, re.ASCII):
        return dataclasses.replace(config, outer_steps=int(budget.removesuffix("steps"))), None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?[smh]", budget, re.ASCII) and float(budget[:-1]) > 0:
        return config, float(budget[:-1]) * seconds[budget[-1]]
    raise FloppyError(f"Budget {shown(budget)} was asked for: give steps or a time, such as 500steps, 60s or 10m.")


def _layers(config: DistillConfig) -> int:
    return parse_distributions(config.distribution)[0].layers


def _with_strategy(outer: OuterLoopConfig, strategy: str) -> HaDES:
    if not isinstance(outer, HaDES):
        raise FloppyError(f"Strategy {strategy} was asked for with {outer.name}, which has none: choose recipe hades.")
    return outer if strategy == outer.strategy else dataclasses.replace(outer, strategy=strategy, rate=None)


def _changed(outer: OuterLoopConfig, **changes: Any) -> OuterLoopConfig:
    """`dataclasses.replace` for a loop of which the fields are known here, though not to the type checker."""
    return dataclasses.replace(outer, **changes)


def _cloning_defaults(kind: str) -> dict[str, Any]:
    if kind not in CLONING_KINDS:
        raise FloppyError(f"Cloning {kind} was asked for: choose from {', '.join(CLONING_KINDS)}.")
    if kind == "AdamSteps":
        return {"cloning": AdamSteps(loss="mse"), "initial_rate": 0.01}
    if kind == "ImplicitStep":
        return {"cloning": ImplicitStep(), "initial_rate": 100.0}
    return {"cloning": GradientStep(), "initial_rate": 1.0}
