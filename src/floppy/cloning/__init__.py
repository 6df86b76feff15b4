"""Cloning: how a fresh policy learns from a distilled dataset. A kind of cloning is a file here and a line below."""

from floppy.cloning.adam import AdamSteps
from floppy.cloning.base import (
    CLONINGS,
    Cloning,
    CloningDefaults,
    Distilled,
    Term,
    clone,
    register_cloning,
    step_rates,
    total_loss,
)
from floppy.cloning.feature import FeatureSteps
from floppy.cloning.gradient import GradientStep
from floppy.cloning.implicit import ImplicitStep
from floppy.cloning.losses import LOSSES, Loss, register_loss

__all__ = [
    "CLONINGS",
    "LOSSES",
    "AdamSteps",
    "Cloning",
    "CloningDefaults",
    "Distilled",
    "FeatureSteps",
    "GradientStep",
    "ImplicitStep",
    "Loss",
    "Term",
    "clone",
    "register_cloning",
    "register_loss",
    "step_rates",
    "total_loss",
]
