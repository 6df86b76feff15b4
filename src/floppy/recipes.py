"""Default configurations per task and method, chosen by measurement (docs/results): tables of values.

A recipe has a row per profile of tasks (`profile_of`). A row holds fields of `DistillConfig`; a value that depends on
the task, or on the number of examples asked for, is a function of `Wanted`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from floppy.cloning import AdamSteps, Cloning, FeatureSteps, GradientStep, ImplicitStep
from floppy.cloning.base import defaults_of_kind
from floppy.errors import FloppyError, must_be_one_of, shown
from floppy.fields import plain_value
from floppy.learner.distribution import (
    NATURE_DISTRIBUTION,
    PYRAMID_DISTRIBUTION,
    WIDE_PYRAMID_DISTRIBUTION,
    as_learners,
    describe_distribution,
    parse_distributions,
)
from floppy.learner.network import FEATURES, Learners
from floppy.outer import PPMO, HaDES, Imitation, OuterLoop, Supervised
from floppy.run.config import DistillConfig
from floppy.run.stages import Stage
from floppy.tasks.base import Profile, Task, default_episodes, profile_of, selection_view, usual_profile
from floppy.tasks.registry import make_task

ROBUST_DISTRIBUTIONS = "lambda,ortho1,xavier,xavier1,width=32..128,random-depth"
"""Those of the PPMO paper's Table 1, but for the width: 128 is as robust as 256 at a quarter of the arithmetic."""


class Wanted(NamedTuple):
    """What a configuration is wanted for."""

    task: Task
    profile: Profile
    examples: int
    """The number that is asked for, or the row's own."""
    distribution: str = ""
    """Learners, where any are asked for."""

    @property
    def has_features(self) -> bool:
        """Whether these have hidden layers that `FeatureSteps` can move, which networks of users' own may not."""
        learners = parse_distributions(self.distribution) if self.distribution else ()
        networks = (each.bind(self.task.observation_shape, self.task.actions) for each in learners)
        return all(FEATURES in network.offers for network in networks)


class Part(NamedTuple):
    """A cloning or an outer loop of a row: its class and its fields, as in a row."""

    kind: type[Any]
    fields: dict[str, Any]

    def but(self, **fields: Any) -> "Part":
        """The same with other fields."""
        return Part(self.kind, self.fields | fields)


def part(kind: type[Any], **fields: Any) -> Part:
    """A `Part` as it is written in a table."""
    return Part(kind, fields)


Row = dict[str, Any]
"""Fields of `DistillConfig`."""


class Recipe(NamedTuple):
    """A method's configuration for each profile of tasks that it suits."""

    rows: Mapping[str, Row]
    """By the name of a profile."""
    needs: str = ""
    """What a task must have, for the message to one that has no row or does not `suit`."""
    suits: Callable[[Task], bool] = lambda task: True


# --- values that depend on the task ---


def least_for_cart_pole(wanted: Wanted) -> int:
    """The papers' k_min = ceil(c / 2) + 1 for c = 2 N actions."""
    return wanted.profile.dimensions + 1


def least_for_actions(wanted: Wanted) -> int:
    """The papers' k_min = ceil(c / 2) + 1 for c actions."""
    return math.ceil(wanted.task.actions.size / 2) + 1


def one_per_class(wanted: Wanted) -> int:
    """An example for each class."""
    return wanted.task.actions.size


def all_held_out(wanted: Wanted) -> int:
    """Every image by which the best dataset is chosen."""
    return default_episodes(selection_view(wanted.task))


def all_tested(wanted: Wanted) -> int:
    """Every test image."""
    return default_episodes(wanted.task)


def cart_pole_steps(wanted: Wanted) -> int:
    """More steps for more dimensions, and for few examples, which learn slowly."""
    steps = max(300, 400 * (wanted.profile.dimensions - 1))
    return max(400, steps) if wanted.examples < least_for_cart_pole(wanted) else steps


def cart_pole_rate(wanted: Wanted) -> float:
    """Small for few examples: a fast run easily sticks in a local optimum."""
    if wanted.examples >= least_for_cart_pole(wanted):
        return 1e-2
    return 1e-3 if wanted.profile.dimensions == 1 else 2e-3


def cart_pole_generations(wanted: Wanted) -> int:
    """More for more dimensions."""
    return 60 * wanted.profile.dimensions


def papers_adam_steps(wanted: Wanted) -> int:
    """Table 2 of the HaDES paper."""
    return 200 if wanted.profile.is_quickly_cloned else 400


def if_slow(slow: int, usual: int) -> Callable[[Wanted], int]:
    """One number for tasks whose steps take long, another for all others."""
    return lambda wanted: slow if wanted.profile.is_slow else usual


def if_small(small: Any, usual: Any) -> Callable[[Wanted], Any]:
    """One value for tasks of few numbers, another for all others."""
    return lambda wanted: small if wanted.profile.is_small else usual


def if_features(moved: Any, usual: Any) -> Callable[[Wanted], Any]:
    """One value for learners whose hidden layers `FeatureSteps` can move, another for all others."""
    return lambda wanted: moved if wanted.has_features else usual


def unless_of_unit_size(wanted: Wanted) -> bool:
    """Whether to scale by running statistics: nobody knows in which units a user's task is."""
    return not wanted.profile.is_of_unit_size


# --- PPMO ---

# MinAtar's size of image. One step from a fresh network does not generalise over them: give an encoder layer.
_PPMO_IMAGES: Row = {
    "examples": 16,
    "outer_steps": 1500,
    "evaluate_every": 50,
    "distribution": "width=128:depth=1:activation=relu",
    "selection_learners": 16,
    "selection_episodes": 4,
    "outer": part(
        PPMO,
        learners=16,
        environments=8,
        horizon=64,
        minibatch_size=2048,
        rate=5e-3,
        critic_rate=5e-3,
        entropy_bonus=0.02,
        normalise_observations=unless_of_unit_size,
        normalise_rewards=unless_of_unit_size,
    ),
}
# Of few numbers policies must often be bent functions, as to swing a pendulum up, which one gradient step behind a
# small output layer hardly makes of fresh networks: there hidden layers learn as well (docs/results/classic.md).
_SMALL_CLONING: Row = {
    "cloning": if_small(if_features(part(FeatureSteps), part(GradientStep)), part(GradientStep)),
    "initial_rate": if_small(if_features((1000.0, 1000.0, 100.0), 1.0), 1.0),
}
# The corrected PPMO with several learners per outer step, of the size that suits the task.
_PPMO: dict[str, Row] = {
    "vector": _SMALL_CLONING
    | {
        "examples": 16,
        "outer": part(PPMO, normalise_observations=unless_of_unit_size, normalise_rewards=unless_of_unit_size),
    },
    "cartpole": {
        "examples": least_for_cart_pole,
        "outer_steps": cart_pole_steps,
        "outer": part(PPMO, rate=cart_pole_rate),
    },
    # Brax and MuJoCo: observations and rewards in units of their own spread, and no bonus for random actions.
    "continuous": _SMALL_CLONING
    | {
        "examples": 64,
        "outer_steps": if_small(500, 1500),
        "evaluate_every": 50,
        "selection_learners": 16,
        "selection_episodes": 4,
        "score_learners": if_slow(20, 100),
        "score_episodes": if_slow(5, 10),
        "outer": part(
            PPMO,
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
    },
    "grid": _PPMO_IMAGES,
    "small-images": _PPMO_IMAGES,
    "large-images": _PPMO_IMAGES,
    # The PPMO paper's network and number of examples. Games are learnt from many frames, so that few network passes are
    # spent on each: one learner, one epoch, a critic without convolutions.
    "atari": {
        "examples": least_for_actions,
        "outer_steps": 1000,
        "evaluate_every": 40,
        "distribution": NATURE_DISTRIBUTION,
        "initial_rate": 10.0,  # with 1 policies hardly moved, with 300 they were deterministic after one step
        "initial_examples": "random-policy",
        "selection_learners": 8,
        "selection_episodes": 1,
        "score_learners": 10,
        "score_episodes": 5,
        "outer": part(
            PPMO,
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
    },
}

# The same over random widths, depths and initialisers, as in the PPMO paper's Table 1; the six distributions share half
# as many learners again equally. Hidden layers move by steps of one length, whatever the gain of the output layer.
# Measured on cart-pole alone. Networks without features take gradient steps, which was not measured.
_ROBUST: Row = {
    "distribution": ROBUST_DISTRIBUTIONS,
    "outer_steps": 300,
    "evaluate_every": 50,
    "cloning": if_features(part(FeatureSteps, unit_steps=True), part(GradientStep)),
    "initial_rate": if_features((3.0, 1.0, 100.0), 1.0),
}
_PPMO_ROBUST: dict[str, Row] = {
    name: _PPMO[name]
    | _ROBUST
    | {"outer": _PPMO[name]["outer"].but(learners=learners, minibatch_size=minibatch_size, normalise_observations=True)}
    for name, learners, minibatch_size in (("vector", 24, 3072), ("cartpole", 24, 3072), ("continuous", 6, 1536))
}

# For networks of any kind: the implicit step asks the same of each of them, whatever its features are, and these are
# only alike where observations are: of small ones ReLU's are small, tanh's nearly linear.
_ANY: Row = {
    "distribution": "any",
    "outer_steps": 400,
    "evaluate_every": 50,
    "selection_learners": 32,
    "selection_episodes": 4,
    "cloning": part(ImplicitStep),
    "initial_rate": 100.0,
}
_PPMO_ANY: dict[str, Row] = {
    name: _PPMO[name]
    | _ANY
    | {"outer": _PPMO[name]["outer"].but(learners=16, minibatch_size=2048, normalise_observations=True)}
    for name in ("vector", "cartpole", "continuous", "grid")
}

# The PPMO paper's constants (section 5.1), with this library's corrections.
_PAPERS_LOOP = part(
    PPMO,
    learners=1,
    environments=10,
    horizon=200,
    minibatch_size=512,
    rate=2.5e-4,
    critic_rate=2.5e-4,
    anneal=False,
)
_PAPERS: Row = {
    "cloning": part(GradientStep),
    "initial_rate": 0.02,
    "initial_examples": "normal",
    "outer_steps": 3000,
    "evaluate_every": 50,
    "scaled_actions": False,
}
_PPMO_PAPER: dict[str, Row] = {name: row | _PAPERS | {"outer": _PAPERS_LOOP} for name, row in _PPMO.items()}
_PPMO_PAPER["continuous"] |= {"outer": _PAPERS_LOOP.but(clip=0.1, normalise_observations=True)}

# --- Taught: a teacher's policy, imitation, then PPMO alone ---

# The last stage. Examples and rates come from the stage before it; a low rate, and a critic that knows the dataset's
# policies before it leads them.
_TAUGHT_LOOP = part(
    PPMO,
    learners=8,
    environments=16,
    horizon=64,
    epochs=3,
    minibatch_size=2048,
    rate=7e-4,
    critic_rate=2e-3,
    critic_width=128,
    critic_warm_up=20,
    entropy_bonus=0.005,
    target_kl=0.03,
    normalise_observations=True,
    normalise_rewards=unless_of_unit_size,
)
_TAUGHT_ROW: Row = {
    "examples": 16,
    "outer_steps": 480,
    "evaluate_every": 48,
    "cloning": part(FeatureSteps),
    "initial_rate": (1000.0, 1000.0, 100.0),
    "held_rates": ("kernel_rate", "bias_rate"),
    "frozen_normaliser": True,
    "selection_learners": 32,
    "selection_episodes": 4,
    "selection_quantile": 0.1,
    "score_learners": 20,
    "score_episodes": 20,
    "outer": _TAUGHT_LOOP,
}
_TAUGHT: dict[str, Row] = {
    # One wide layer, and all pixels divided by the same number: divided by their own deviations rare ones are hundreds.
    "grid": _TAUGHT_ROW
    | {
        "distribution": "width=256:depth=1:activation=relu:initialiser=xavier",
        "observation_deviation": 0.5,
    },
    "vector": _TAUGHT_ROW,
    "cartpole": _TAUGHT_ROW | {"examples": least_for_cart_pole},
    "continuous": _TAUGHT_ROW | {"examples": 64, "outer": _TAUGHT_LOOP.but(entropy_bonus=0.0, least_std=0.3)},
}

# Fresh output layers on a stored layer explore: in Breakout their policy meets 58 bricks where plain PPO's meets 11; in
# the other games it comes near to plain PPO's (docs/results/minatar.md).
TEACHERS: dict[str, Row] = {"grid": {"encoder_layers": 1}}
"""Changes to recipe ppmo that make the teacher, by profile; of all other tasks plain PPO does."""

IMITATION_STEPS, IMITATION_EVALUATIONS = 340, 5
"""Of the stage that imitates."""
IMITATION_HOLDS = {"continuous": ("readout_rate",)}
"""Rates of the cloning that it does not improve, by profile."""


# --- Meta-gradients on labelled examples ---

# From the class means, with learned soft labels.
_SMALL_IMAGES: Row = {
    "examples": one_per_class,
    "evaluate_every": 50,
    "distribution": "width=64:depth=1:activation=relu",
    "initial_rate": 0.1,
    "cloning": part(GradientStep, loss="cross-entropy", steps=20),
    "initial_examples": "class-means",
    "outer": part(Supervised),
    "selection_learners": 8,
    "selection_episodes": all_held_out,
    "score_learners": 20,
    "score_episodes": all_tested,
}
# Random convolutions with instance norm, and the best output layer on them, beat all networks trained through.
_LARGE_IMAGES: Row = _SMALL_IMAGES | {
    "outer_steps": 1500,
    "evaluate_every": 100,
    "distribution": PYRAMID_DISTRIBUTION,
    "initial_rate": 600.0,
    "cloning": part(ImplicitStep),
    "outer": part(Supervised, learners=1, batch_size=256, rate=5e-2),
    "selection_learners": 4,
}
# Wider networks, whose draws differ less, in a pool: the real images are convolved once for several outer steps.
_LARGE_IMAGES_IN_POOL: Row = _LARGE_IMAGES | {
    "outer_steps": 3000,
    "evaluate_every": 500,
    "distribution": WIDE_PYRAMID_DISTRIBUTION,
    "outer": part(Supervised, learners=1, batch_size=256, rate=5e-2, pool=16, coordinates="principal"),
}

# --- HaDES ---

_HADES_DISCRETE: Row = {
    "examples": 16,
    "outer_steps": if_small(250, 1000),
    "distribution": "width=64:activation=relu",
    "initial_rate": 0.05,
    "cloning": part(AdamSteps, loss="cross-entropy", steps=8, max_grad_norm=0.0),
    "targets": "one-hot",
    "initial_examples": "zeros",
    "outer": part(
        HaDES,
        population=if_small(64, 256),
        environments=2,
        horizon=500,
        sigma=0.2,
        rate=0.02,
        rate_decay=0.2,
        normalise_observations=True,
    ),
    "selection_learners": 32,
}
# Evolution of images from the class means, with noise that neighbouring pixels share.
_IMAGES_LOOP = part(HaDES, population=64, initialisations=1, environments=1024, sigma=0.05, rate=0.02, smoothness=1.0)
# HaDES-R that finishes on a CPU of two cores: narrow learners, few Adam steps, a small population.
_HADES: dict[str, Row] = {
    "vector": _HADES_DISCRETE,
    "grid": _HADES_DISCRETE,
    # One example, whose logits are what evolution is quick to find: the noise of pixels is small against theirs. Such a
    # policy hardly looks at the frame. Games are played out nearly always, for the first hundreds of steps favour other
    # policies. Measured on Centipede alone.
    "atari": {
        "examples": 1,
        "outer_steps": 48,
        "evaluate_every": 6,
        "distribution": NATURE_DISTRIBUTION,
        "initial_rate": 100.0,
        "cloning": part(ImplicitStep),
        "targets": "learned",
        "initial_examples": "random-policy",
        "frozen_normaliser": True,
        "selection_learners": 32,
        "selection_episodes": 1,
        "score_learners": 10,
        "score_episodes": 10,
        "outer": part(
            HaDES,
            population=32,
            initialisations=1,
            environments=1,
            horizon=2000,
            sigma=0.02,
            target_noise=75.0,
            rate=0.005,
            rate_decay=0.4,
            normalise_observations=True,
        ),
    },
    "cartpole": {
        "examples": least_for_cart_pole,
        "outer_steps": cart_pole_generations,
        "evaluate_every": 20,
        "initial_rate": 0.03,
        "cloning": part(AdamSteps, loss="cross-entropy", steps=32),
        "outer": part(HaDES, sigma=0.3, rate=0.1),
    },
    "continuous": {
        "examples": 16,
        "outer_steps": if_small(250, 500),
        "distribution": "width=64",
        "initial_rate": 0.02,
        "cloning": part(AdamSteps, loss="gaussian-nll", steps=100),
        "outer": part(HaDES, population=32, environments=1, sigma=0.2, rate=0.05, normalise_observations=True),
        "selection_learners": 16,
    },
    # Labels are fixed, as published.
    "small-images": _SMALL_IMAGES | {"targets": "one-hot", "outer": _IMAGES_LOOP},
    # But not here, where the output layer is solved for; the smaller noise of their logits leaves most of the
    # differences in fitness to the pixels.
    "large-images": _LARGE_IMAGES
    | {
        "outer_steps": 2400,
        "evaluate_every": 100,
        "outer": _IMAGES_LOOP.but(
            population=256, environments=512, sigma=0.1, rate=0.03, rate_decay=0.05, target_noise=0.25
        ),
    },
}

# As in the paper's Table 2 for Brax, with a normaliser that is frozen into the file in the end.
_HADES_BRAX: Row = {
    "examples": 64,
    "outer_steps": 2000,
    "evaluate_every": 10,
    "distribution": "width=512",
    "initial_rate": 0.005,
    "learned_rate": False,
    "initial_examples": "zeros",
    "cloning": part(AdamSteps, loss="gaussian-nll", steps=papers_adam_steps, eps_root=0.0),
    "outer": part(HaDES, population=2048, sigma=0.03, rate=0.05, horizon=1024, normalise_observations=True),
    "selection_learners": 16,
}
# As in the paper's Table 3 for MinAtar, but for episodes as long as the game's own.
_HADES_MINATAR: Row = {
    "examples": 16,
    "outer_steps": 5000,
    "evaluate_every": 50,
    "distribution": "width=512:activation=relu",
    "initial_rate": 0.03,
    "learned_rate": False,
    "cloning": part(AdamSteps, loss="cross-entropy", steps=64, max_grad_norm=0.0, eps_root=0.0),
    "targets": "one-hot",
    "outer": part(
        HaDES,
        strategy="SNES",
        population=2048,
        environments=8,
        sigma=0.5,
        antithetic=False,
        normalise_observations=True,
    ),
    "selection_learners": 16,
}


def has_flat_observations(task: Task) -> bool:
    """Whether dense networks are meant for them."""
    return len(task.observation_shape) != 3


RECIPES: dict[str, Recipe] = {
    "ppmo": Recipe(_PPMO),
    "ppmo-robust": Recipe(_PPMO_ROBUST, "flat observations, for its networks are dense", has_flat_observations),
    "ppmo-any": Recipe(_PPMO_ANY, "few numbers or small images to be observed"),
    "ppmo-paper": Recipe(_PPMO_PAPER),
    # The paper's constants and the published code's errors, to show the difference that they make.
    "ppmo-published": Recipe(
        {name: row | {"outer": row["outer"].but(published_errors=True)} for name, row in _PPMO_PAPER.items()}
    ),
    # The configuration of its last stage; see `STAGED`.
    "taught": Recipe(_TAUGHT, "episodes that plain PPO learns from in minutes"),
    "hades": Recipe(_HADES),
    "hades-brax": Recipe(dict.fromkeys(_HADES, _HADES_BRAX)),
    "hades-minatar": Recipe(dict.fromkeys(_HADES, _HADES_MINATAR)),
    "supervised": Recipe({"small-images": _SMALL_IMAGES, "large-images": _LARGE_IMAGES_IN_POOL}, "labelled examples"),
}
"""Recipes by name."""


def taught_stages(last: DistillConfig, *, teacher_steps: int = 0, imitation_steps: int = 0) -> list[Stage]:
    """A teacher's policy, a dataset that imitates it, and PPMO that begins with that dataset and has no teacher.

    Args:
      last: configuration of the last stage, as recipe taught gives it. With a `teacher` of its loop the first stage is
        left out, and that file's policy is imitated; with a `start` the second one too.
      teacher_steps: outer steps of the first stage; 0 for the recipe's number.
      imitation_steps: of the second one.

    Returns:
      The stages, for `run.stages.distill_stages`.
    """
    outer: Any = last.outer
    alone: Any = dataclasses.replace(outer, teacher="")
    stages = [
        Stage("teacher", lambda _: _teacher(last, teacher_steps)),
        Stage("imitation", lambda path: _imitation(last, outer.teacher or path, imitation_steps or IMITATION_STEPS)),
        Stage("", lambda path: dataclasses.replace(last, start=last.start or path, outer=alone)),
    ]
    return stages[2 if last.start else 1 if outer.teacher else 0 :]


def _teacher(last: DistillConfig, steps: int) -> DistillConfig:
    kept = ("seed", "scaled_actions", "score_learners", "score_episodes")
    same: Row = {name: getattr(last, name) for name in kept}
    row = TEACHERS.get(_row_name(make_task(last.task)))
    config = ppo_baseline(last.task, **same) if row is None else recipe(last.task, "ppmo", **same, **row)
    return dataclasses.replace(config, outer_steps=steps or config.outer_steps)


def _imitation(last: DistillConfig, teacher: str, steps: int) -> DistillConfig:
    outer: Any = last.outer
    imitation = Imitation(teacher=teacher, normalise_observations=outer.normalise_observations)
    if (members := len(parse_distributions(last.distribution))) > 1:  # as many fresh networks and steps in all
        imitation = dataclasses.replace(
            imitation,
            learners=members,
            updates=math.ceil(imitation.learners * imitation.updates / members),
            clones=members,
            environments=math.ceil(imitation.clones * imitation.environments / members),
        )
    held = IMITATION_HOLDS.get(_row_name(make_task(last.task)), ())
    return dataclasses.replace(
        last,
        outer_steps=steps,
        evaluate_every=math.ceil(steps / IMITATION_EVALUATIONS),
        held_rates=tuple(rate for rate in last.cloning.rates if rate in held),
        outer=imitation,
    )


STAGED = {"taught": taught_stages}
"""Recipes that take several runs, and what gives them by the configuration of the last one."""

ONE_RUN = tuple(name for name in RECIPES if name not in STAGED)
"""Recipes that take one run, whose configuration is all that there is to them."""

DEFAULT_RECIPES = {"small-images": "supervised", "large-images": "supervised"}
"""By profile; all others have ppmo."""


def check_recipe(name: str) -> None:
    """Checks that there is a recipe of this name.

    Raises:
      FloppyError: if there is none; it lists those that there are.
    """
    if name not in RECIPES:
        raise must_be_one_of("recipe", name, RECIPES)


def recipe(
    task: str,
    name: str = "",
    *,
    examples: int | None = None,
    cloning: str | Cloning | None = None,
    strategy: str | None = None,
    distribution: "str | Learners | Iterable[str | Learners] | None" = None,
    **changes: Any,
) -> DistillConfig:
    """The configuration of a recipe for a task.

    Args:
      task: id or short name.
      name: of the recipe, see `RECIPES`; ppmo, hades and supervised are the defaults of the outer loops, supervised
        that of labelled images and ppmo that of all other tasks.
      examples: how many, in place of the recipe's number.
      cloning: in place of the recipe's: a whole one, or the name of a kind, see `floppy.cloning.CLONINGS`, with
        defaults of its own.
      strategy: of evolution, in place of the recipe's, with that strategy's own rate.
      distribution: of learners, in place of the recipe's: as text, as an object, or several of either; a network of
        your own must have a name, see `floppy.register_network`.
      **changes: other fields of `DistillConfig` to replace.

    Returns:
      The configuration.

    Raises:
      FloppyError: for an unknown name, a value that is not allowed, or a task that the recipe does not suit.
    """
    known, examples = make_task(task), plain_value("examples", examples, int | None)
    name = name or DEFAULT_RECIPES.get(_row_name(known), "ppmo")
    check_recipe(name)
    learners = "" if distribution is None else _distribution_text(distribution)
    config = _configured(known, name, examples or None, learners)
    if examples == 0:  # only an encoder of every layer, which is among the changes, can do without
        changes = {"examples": 0} | changes
    if isinstance(cloning, str) and cloning != type(config.cloning).__name__:
        changes = defaults_of_kind(cloning) | changes
    elif cloning is not None and not isinstance(cloning, str):
        changes = {"cloning": cloning} | changes
    if distribution is not None:
        changes = {"distribution": learners} | changes
    if strategy is not None:
        changes = {"outer": with_strategy(config.outer, strategy)} | changes
    return _changed(config, changes)


def _changed(config: DistillConfig, changes: dict[str, Any]) -> DistillConfig:
    """The configuration with other fields.

    Raises:
      FloppyError: for unknown fields, and values that are not allowed.
    """
    unknown = sorted(changes.keys() - {field.name for field in dataclasses.fields(config)})
    if unknown:
        raise FloppyError(
            f"A configuration has no {', '.join(unknown)}: give fields of DistillConfig; for an outer loop's own, "
            "replace outer by dataclasses.replace(config.outer, ...)."
        )
    return dataclasses.replace(config, **changes)


def _profile(task: Task) -> Profile:
    """The profile by which recipes know a task: its own, by the usual name where they do not know that."""
    own, usual = profile_of(task), usual_profile(task)
    return own if own.name in _PPMO else own._replace(name=usual.name, is_small=usual.is_small)


def _row_name(task: Task) -> str:
    """The row of a task."""
    return _profile(task).name


def _configured(task: Task, name: str, examples: int | None, distribution: str) -> DistillConfig:
    rows, needs, suits = RECIPES[name]
    row = rows.get(_row_name(task))
    if row is None or not suits(task):
        raise FloppyError(
            f"Recipe {name} needs {needs}, and {task.task_id} has none: leave --recipe out, or choose another one."
        )
    wanted = Wanted(task, _profile(task), examples or 0, distribution)
    wanted = wanted._replace(examples=examples or _value(row["examples"], wanted))
    fields = {field: _value(value, wanted) for field, value in row.items()}
    return DistillConfig(task.task_id, **(fields | {"examples": wanted.examples}))


def _value(value: Any, wanted: Wanted) -> Any:
    """A value of a row for what is wanted."""
    if isinstance(value, Part):
        return value.kind(**{name: _value(each, wanted) for name, each in value.fields.items()})
    return _value(value(wanted), wanted) if callable(value) else value


def _distribution_text(given: "str | Learners | Iterable[str | Learners]") -> str:
    """Distributions as a configuration holds them."""
    if isinstance(given, str):
        return given
    parts: Iterable[Any] = given if isinstance(given, Iterable) else [given]
    return ",".join(each if isinstance(each, str) else _described(as_learners(each)) for each in parts)


def _described(learners: Learners) -> str:
    learners.as_entry()  # a network without a name is refused
    return describe_distribution(learners)


def ppo_baseline(task: str, **changes: Any) -> DistillConfig:
    """Plain PPO on a task: PPMO whose encoder holds every layer.

    Args:
      task: an id or a short name.
      **changes: fields of the configuration that are to differ, as for `recipe`.

    Returns:
      The configuration, for `distill`; the dataset that comes out has no examples, and plain PPO's policy.

    Raises:
      FloppyError: for an unknown task, unknown fields, or values that are not allowed.
    """
    config = recipe(task, "ppmo")
    before: Any = config.outer
    outer = dataclasses.replace(
        before,
        learners=1,
        environments=before.learners * before.environments,  # all learners are the same
        rate=before.encoder_rate or min(before.rate, 2e-3),
        encoder_rate=0.0,
    )
    unused = {"initial_examples": "normal", "cloning": GradientStep(), "initial_rate": 1.0}  # nothing is cloned
    return _plain(config, unused | {"outer": outer} | changes)


DIRECT_SEARCH: dict[str, Any] = {"initialisations": 1, "sigma": 0.05, "rate": 0.02, "smoothness": 0.0}
"""Fields of HaDES for the search among policies' weights."""
DIRECT_POPULATION: dict[str, Any] = {"population": 256, "environments": 2}
"""The same, but for labelled images, of which the recipe's own numbers stay."""


def neuroevolution_baseline(task: str, **changes: Any) -> DistillConfig:
    """Direct neuroevolution of a policy's weights: HaDES whose encoder holds every layer.

    Args:
      task: an id or a short name.
      **changes: fields of the configuration that are to differ, as for `recipe`.

    Returns:
      The configuration, for `distill`; the dataset that comes out has no examples, and the policy that was found.

    Raises:
      FloppyError: for an unknown task, unknown fields, or values that are not allowed.
    """
    config = recipe(task, "hades")
    is_labelled = _row_name(make_task(task)) in DEFAULT_RECIPES
    fields = DIRECT_SEARCH | ({} if is_labelled else DIRECT_POPULATION)
    outer: Any = config.outer
    learnt = {"targets": "learned", "frozen_normaliser": False}
    return _plain(config, learnt | {"outer": dataclasses.replace(outer, **fields)} | changes)


def _plain(config: DistillConfig, changes: Row) -> DistillConfig:
    """The configuration with changes, and with an encoder that holds every layer of its learners."""
    distribution = _distribution_text(changes.get("distribution", config.distribution))
    layers = parse_distributions(distribution)[0].layers
    return _changed(config, {"examples": 0, "encoder_layers": layers} | changes | {"distribution": distribution})


def for_one_learner(config: DistillConfig) -> DistillConfig:
    """HaDES-F of a configuration of HaDES-R: the seed draws the only learner, which plays all the episodes."""
    learner: Any = parse_distributions(config.distribution)[0]
    outer: Any = config.outer
    episodes = outer.environments * outer.initialisations
    return dataclasses.replace(
        config,
        distribution=describe_distribution(dataclasses.replace(learner, init_seed=config.seed)),
        outer=dataclasses.replace(outer, initialisations=1, environments=episodes),
    )


def apply_budget(config: DistillConfig, budget: str) -> tuple[DistillConfig, float | None]:
    """The configuration and time limit (s) of `--budget`: `500steps`, `60s`, `10m` or `2h`."""
    seconds = {"s": 1.0, "m": 60.0, "h": 3600.0}
    if not budget:
        return config, None
    if re.fullmatch(r"0*[1-9]\d{0,8}steps", budget, re.ASCII):
        return dataclasses.replace(config, outer_steps=int(budget.removesuffix("steps"))), None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?[smh]", budget, re.ASCII) and float(budget[:-1]) > 0:
        return config, float(budget[:-1]) * seconds[budget[-1]]
    raise FloppyError(f"budget must be a number of steps or a time, such as 500steps, 60s or 10m, got {shown(budget)}.")


def steps_of_baseline(config: DistillConfig) -> int:
    """Environment steps that an outer step of plain PPO takes."""
    outer: Any = config.outer
    return int(outer.learners * outer.environments * outer.horizon)


def with_strategy(outer: Any, strategy: str) -> OuterLoop:
    """An outer loop with another strategy of evolution, at that strategy's own rate.

    Raises:
      FloppyError: for an unknown strategy, and a loop that has none.
    """
    if not hasattr(outer, "strategy"):
        raise FloppyError(
            f"strategy must be left out for {outer.name}, which has none, got {shown(strategy)}: choose recipe hades."
        )
    is_same = strategy == outer.strategy
    changed: OuterLoop = outer if is_same else dataclasses.replace(outer, strategy=strategy, rate=None)
    return changed
