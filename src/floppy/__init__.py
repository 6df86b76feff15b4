"""floppy distils a reinforcement-learning task into a handful of synthetic examples.

A freshly initialised policy that takes one (or a few hundred) supervised steps on them plays the task.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floppy.cloning.adam import AdamSteps as AdamSteps
    from floppy.cloning.base import CloningDefaults as CloningDefaults
    from floppy.cloning.base import register_cloning as register_cloning
    from floppy.cloning.feature import FeatureSteps as FeatureSteps
    from floppy.cloning.gradient import GradientStep as GradientStep
    from floppy.cloning.implicit import ImplicitStep as ImplicitStep
    from floppy.cloning.losses import Loss as Loss
    from floppy.cloning.losses import register_loss as register_loss
    from floppy.dataset.card import Card as Card
    from floppy.dataset.file import DistilledDataset as DistilledDataset
    from floppy.dataset.file import load as load
    from floppy.dataset.file import save as save
    from floppy.dataset.folder import save_folder as save_folder
    from floppy.drawing.page import draw as draw
    from floppy.drawing.page import draw_example as draw_example
    from floppy.drawing.page import draw_observation as draw_observation
    from floppy.errors import FloppyError as FloppyError
    from floppy.evaluation.evaluate import evaluate as evaluate
    from floppy.evaluation.evaluate import evaluate_policies as evaluate_policies
    from floppy.evaluation.evaluate import evaluate_random as evaluate_random
    from floppy.evaluation.score import Score as Score
    from floppy.learner.distribution import parse_distribution as parse_distribution
    from floppy.learner.mlp import LearnerDistribution as LearnerDistribution
    from floppy.learner.user_networks import network as network
    from floppy.learner.user_networks import register_network as register_network
    from floppy.outer.base import OuterLoopDefaults as OuterLoopDefaults
    from floppy.outer.base import register_outer_loop as register_outer_loop
    from floppy.outer.hades.loop import HaDES as HaDES
    from floppy.outer.imitation import Imitation as Imitation
    from floppy.outer.ppmo.loop import PPMO as PPMO
    from floppy.outer.supervised import Supervised as Supervised
    from floppy.recipes import RECIPES as RECIPES
    from floppy.recipes import neuroevolution_baseline as neuroevolution_baseline
    from floppy.recipes import ppo_baseline as ppo_baseline
    from floppy.recipes import recipe as recipe
    from floppy.run.config import DistillConfig as DistillConfig
    from floppy.run.loop import DistillResult as DistillResult
    from floppy.run.loop import distill as distill
    from floppy.tasks.registry import list_tasks as list_tasks
    from floppy.tasks.registry import make_task as make_task
    from floppy.teach.arrays import export_npz as export_npz
    from floppy.teach.arrays import import_npz as import_npz
    from floppy.teach.merge import merge as merge
    from floppy.teach.policies import Policies as Policies
    from floppy.teach.policies import Policy as Policy
    from floppy.teach.policies import ensemble_outputs as ensemble_outputs
    from floppy.teach.policies import policy_outputs as policy_outputs
    from floppy.teach.policies import train as train
    from floppy.teach.policy_file import load_policies as load_policies
    from floppy.teach.policy_file import save_policies as save_policies

_MODULES = {
    "floppy.cloning": (
        "AdamSteps",
        "CloningDefaults",
        "FeatureSteps",
        "GradientStep",
        "ImplicitStep",
        "Loss",
        "register_cloning",
        "register_loss",
    ),
    "floppy.dataset": ("Card", "DistilledDataset", "load", "save", "save_folder"),
    "floppy.drawing": ("draw", "draw_example", "draw_observation"),
    "floppy.errors": ("FloppyError",),
    "floppy.evaluation.evaluate": ("evaluate", "evaluate_policies", "evaluate_random"),
    "floppy.evaluation.score": ("Score",),
    "floppy.learner.distribution": ("parse_distribution",),
    "floppy.learner.mlp": ("LearnerDistribution",),
    "floppy.learner.user_networks": ("network", "register_network"),
    "floppy.outer": ("PPMO", "HaDES", "Imitation", "OuterLoopDefaults", "Supervised", "register_outer_loop"),
    "floppy.recipes": ("RECIPES", "neuroevolution_baseline", "ppo_baseline", "recipe"),
    "floppy.run.config": ("DistillConfig",),
    "floppy.run.loop": ("DistillResult", "distill"),
    "floppy.tasks.registry": ("list_tasks", "make_task"),
    "floppy.teach.arrays": ("export_npz", "import_npz"),
    "floppy.teach.merge": ("merge",),
    "floppy.teach.policies": ("Policies", "Policy", "ensemble_outputs", "policy_outputs", "train"),
    "floppy.teach.policy_file": ("load_policies", "save_policies"),
}
"""Where public names live. They are imported when they are first asked for (PEP 562), and with them JAX."""

_SUBMODULES = ("drawing", "minari", "onnx", "report", "sb3", "studies", "tasks", "torch", "zoo")
"""Modules of the public API that need no import of their own; `minari`, `onnx`, `sb3` and `torch` need an extra."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A public name, imported from its module."""
    if name in _SUBMODULES:
        return importlib.import_module(f"floppy.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'floppy' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
