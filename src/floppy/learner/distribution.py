"""Distributions Λ of fresh policies by name: the built-in ones, and networks that users have registered."""

import re
from collections.abc import Mapping
from typing import Any

from floppy.errors import FloppyError, check_kind, shown
from floppy.fields import decode
from floppy.learner.mlp import LearnerDistribution
from floppy.learner.network import Learners
from floppy.learner.user_networks import MIXTURES, MODULE_KIND, NETWORKS

RANGE = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")
"""`64` or `32..256`"""
DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
YES_OR_NO = ("yes", "no")

NAMED_DISTRIBUTIONS = {
    "lambda": LearnerDistribution(),
    "ortho1": LearnerDistribution(initialiser=("orthogonal1",)),
    "xavier": LearnerDistribution(initialiser=("xavier",)),
    "xavier1": LearnerDistribution(initialiser=("xavier1",)),
    "random-width": LearnerDistribution(width=(32, 256)),
    "random-depth": LearnerDistribution(depth=(1, 6)),
}
"""The six columns of the PPMO paper's Table 1."""

for _name, _each in NAMED_DISTRIBUTIONS.items():
    NETWORKS.register(_name, _each)

NATURE_DISTRIBUTION = "network=nature-cnn:width=512:depth=1:activation=relu"
"""The learners for Atari in the PPMO paper (section 6; Mnih et al., 2015)."""

PYRAMID_DISTRIBUTION = "network=pyramid-cnn:depth=0:activation=relu"
"""Classifiers whose convolutions stay as they are drawn."""
WIDE_PYRAMID_DISTRIBUTION = "network=wide-pyramid-cnn:depth=0:activation=relu"
"""The same with more channels."""

HADES_CNN_DISTRIBUTION = "network=hades-cnn:width=128:depth=1:activation=relu:initialiser=lecun"
"""The classifiers of the HaDES paper (section 5.4)."""


def parse_distribution(text: str) -> Learners:
    """A distribution from its name, or from `key=value` pairs joined by colons.

    The name may be that of a network of your own, see `register_network`.

    Example:
      >>> parse_distribution("width=32..256:depth=3:initialiser=xavier").width
      (32, 256)

    Raises:
      FloppyError: if the text is neither, or no text.
    """
    check_kind("distribution", text, str, "text, such as lambda or width=32..256:depth=2")
    if text in NETWORKS:
        return NETWORKS[text]
    if text in MIXTURES:
        raise FloppyError(
            f"Learner distribution {text} is a mixture of {len(MIXTURES[text])}, here one is needed: give one of them, "
            f"such as {MIXTURES[text][0]}."
        )
    fields: dict[str, Any] = {}
    for pair in text.split(":"):
        key, _, value = pair.partition("=")
        if key in ("width", "depth") and (bounds := RANGE.fullmatch(value)):
            fields[key] = (int(bounds[1]), int(bounds[2] or bounds[1]))
        elif key == "initialiser" and value:
            fields[key] = tuple(value.split("+"))
        elif key in ("activation", "network", "norm") and value:
            fields[key] = value
        elif key == "residual" and value in YES_OR_NO:
            fields[key] = value == "yes"
        elif key == "taper" and (taper := DECIMAL.fullmatch(value)):
            fields[key] = float(taper[0])
        elif key == "init_seed" and value.isdecimal():
            fields[key] = int(value)
        else:
            raise FloppyError(
                f"Learner distribution {text!r} is unknown: give one of {', '.join(NETWORKS)}, "
                "or pairs such as width=64:depth=2:initialiser=xavier:activation=tanh:norm=layer:residual=yes."
            )
    return LearnerDistribution(**fields)


def members_of(name: str) -> tuple[str, ...]:
    """The texts of a mixture's distributions by its name; of any other text the text alone."""
    return MIXTURES.get(name, (name,))


def describe_distribution(distribution: Learners) -> str:
    """The text that `parse_distribution` reads as this distribution."""
    return str(distribution)


def parse_distributions(text: str) -> tuple[Learners, ...]:
    """Several distributions, joined by commas; see `parse_distribution`. A mixture's name stands for all of it."""
    return tuple(parse_distribution(each) for part in text.split(",") for each in members_of(part))


def as_learners(distribution: Any) -> Learners:
    """A distribution as it is, or from its text.

    Raises:
      FloppyError: if it is neither, or the text is none of a distribution.
    """
    return distribution if hasattr(distribution, "bind") else parse_distribution(distribution)


def learners_of(entry: Mapping[str, Any]) -> Learners:
    """The distribution that an entry of a card's `learners` describes.

    Raises:
      FloppyError: for an entry that no distribution has, or a network of the writer's own that is not registered here.
    """
    if entry.get("network") != MODULE_KIND:
        learners: LearnerDistribution = decode(LearnerDistribution, entry, "card's learner distribution")
        return learners
    name = entry.get("name")
    if not isinstance(name, str) or name not in NETWORKS:
        raise FloppyError(
            f"The dataset was distilled for the network {shown(name)}, which is not known here: give it by --network "
            "(floppy.register_network), or name another distribution, such as lambda."
        )
    return NETWORKS[name]
