"""floppy distils a reinforcement-learning task into a handful of synthetic examples.

A freshly initialised policy that takes one (or a few hundred) supervised steps on them plays the task.
"""

from floppy.card import Card
from floppy.cloning import AdamSteps, GradientStep, ImplicitStep
from floppy.dataset import DistilledDataset, load, save
from floppy.distill import DistillConfig, DistillResult, distill
from floppy.ensembles import ensemble_outputs
from floppy.errors import FloppyError
from floppy.evaluate import Score, evaluate, evaluate_random
from floppy.importing import import_npz
from floppy.learners import LearnerDistribution, parse_distribution
from floppy.merging import merge
from floppy.outer import PPMO, HaDES
from floppy.recipes import RECIPES, neuroevolution_baseline, ppo_baseline, recipe
from floppy.studies import Level, rollback
from floppy.tasks import list_tasks, make_task
from floppy.train import Policies, policy_outputs, train

__all__ = [
    "PPMO",
    "RECIPES",
    "AdamSteps",
    "Card",
    "DistillConfig",
    "DistillResult",
    "DistilledDataset",
    "FloppyError",
    "GradientStep",
    "HaDES",
    "ImplicitStep",
    "LearnerDistribution",
    "Level",
    "Policies",
    "Score",
    "distill",
    "ensemble_outputs",
    "evaluate",
    "evaluate_random",
    "import_npz",
    "list_tasks",
    "load",
    "make_task",
    "merge",
    "neuroevolution_baseline",
    "parse_distribution",
    "policy_outputs",
    "ppo_baseline",
    "recipe",
    "rollback",
    "save",
    "train",
]
