"""What published HaDES and PPMO runs say of themselves: the `meta` of their `.npz` files, held to one schema."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from floppy.cloning import AdamSteps, GradientStep
from floppy.errors import MAX_COUNT, FloppyError, listed, shown
from floppy.fields import bounded, check_fields, one_of
from floppy.learner.activations import ACTIVATIONS
from floppy.learner.distribution import HADES_CNN_DISTRIBUTION, NATURE_DISTRIBUTION
from floppy.learner.initialisers import FLAX_ORTHOGONAL
from floppy.npz import read_npz

META = "meta"
"""The array of text, JSON, that says what a published file holds."""

MOST_META_BYTES = 2**20
"""Of that array, of which NumPy stores 4 bytes per character; the published ones have 12,000."""

MOST_TEXT = 1000
"""Characters of one text in it."""

IMAGE_TASKS = {"MNIST": "images/mnist", "FashionMNIST": "images/fashion-mnist"}

PPMO_GAMES = {"Centipede": "centipede", "MsPacMan": "ms_pacman", "Pong": "pong", "SpaceInvaders": "space_invaders"}
"""The PPMO paper's games in ALE's spelling."""

NORMALISERS = {"none": "none", "running": "per-evaluation", "constant": "frozen"}
"""This library's names for those of HaDES."""

NO_STATISTICS = (
    "The observations are in units of a running mean and variance that was not published, so real ones are taken raw: "
    "expect less than the paper's score"
)

MUST = dataclasses.MISSING
"""The default of a key that must be there."""

MOST_WHOLE = 10**18
"""In JSON whole numbers may have any length; what is larger is no float, and no count."""

LEAST_RATE, MOST_RATE = 1e-12, 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meta:
    """The keys that a published run's `meta` has; those that nothing here needs are not looked at."""

    env: str
    source_repository: str
    source_file: str

    def __post_init__(self) -> None:
        """Holds the values to their types and bounds."""
        for name, value in vars(self).items():
            if isinstance(value, int) and abs(value) > MOST_WHOLE:
                raise FloppyError(f"{META}.{name} must be a number of at most {MOST_WHOLE:g}, got {shown(value)}.")
        check_fields(self, f"{META}.")
        for name, value in vars(self).items():
            if isinstance(value, str) and len(value) > MOST_TEXT:
                raise FloppyError(f"{META}.{name} must be text of at most {MOST_TEXT} characters, got {shown(value)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HadesMeta(Meta):
    """Of a run of HaDES."""

    overfit: bool
    """Whether it is of one draw of the learner, that of `overfit_seed`."""
    overfit_seed: int | None = bounded(None, least=0, most=2**32 - 1)
    action_dim: int = bounded(MUST, least=1, most=MAX_COUNT)
    width: int = bounded(MUST, least=1, most=MAX_COUNT)
    activation: str = one_of(MUST, lambda: ACTIVATIONS)
    lr: float = bounded(MUST, least=LEAST_RATE, most=MOST_RATE)
    epochs: int = bounded(MUST, least=1, most=MAX_COUNT)
    max_grad_norm: float | None = bounded(MUST, least=0, most=MOST_RATE)
    """0 and null: none."""
    obs_normaliser: str = one_of(MUST, NORMALISERS)
    final_mean_fitness: float = bounded(MUST)
    fitness: str
    """What it is, in words."""

    def __post_init__(self) -> None:
        """Asks for the seed of the one draw, too."""
        super().__post_init__()
        if self.overfit and self.overfit_seed is None:
            raise FloppyError(f"{META}.overfit_seed must be a whole number where {META}.overfit is true, got None.")

    def defaults(self) -> dict[str, Any]:
        """See `read_published`."""
        about = {
            "reference_score": {"final_mean_fitness": self.final_mean_fitness, "fitness": self.fitness},
            "notes": f"Published by the HaDES paper: {self.source_repository}, {self.source_file}",
        }
        if self.env in IMAGE_TASKS:
            return about | {
                "task": IMAGE_TASKS[self.env],
                "cloning": GradientStep(loss="cross-entropy", steps=self.epochs),
                "rate": self.lr / self.action_dim,  # the published loss is a mean over classes, not their sum
                "distribution": HADES_CNN_DISTRIBUTION,
            }
        continuous = not self.env.endswith(("-MinAtar", "-misc"))
        own_draw = f":initialiser={FLAX_ORTHOGONAL}:init_seed={self.overfit_seed}" if self.overfit else ""
        return about | {
            "task": f"{'brax' if continuous else 'gymnax'}/{self.env}",
            "cloning": AdamSteps(
                loss="gaussian-nll" if continuous else "cross-entropy",
                steps=self.epochs,
                max_grad_norm=self.max_grad_norm or 0.0,
                eps_root=0.0,
            ),
            "rate": self.lr,
            "distribution": f"width={self.width}:activation={self.activation}{own_draw}",
            "normaliser": NORMALISERS[self.obs_normaliser],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class PpmoMeta(Meta):
    """Of a run of PPMO."""

    inner_steps: int = bounded(MUST, least=1, most=MAX_COUNT)
    lr: float | None = bounded(None, least=LEAST_RATE, most=MOST_RATE)
    """Of the cloning; the array `inner_lr` comes first."""
    dimensions: int | None = bounded(None, least=1, most=MAX_COUNT)
    """Of cart-pole."""
    game: str = one_of("", ("", *PPMO_GAMES))
    level: int | None = bounded(None, least=0, most=4)
    """Layers of a game's encoder."""

    def __post_init__(self) -> None:
        """Asks for a game's level, too."""
        super().__post_init__()
        if self.game and self.level is None:
            raise FloppyError(f"{META}.level must be a whole number from 0 to 4 where {META}.game is given, got None.")

    def defaults(self) -> dict[str, Any]:
        """See `read_published`."""
        defaults = {
            "cloning": GradientStep(steps=self.inner_steps),
            "own_rate": self.lr,
            "distribution": "lambda",
            "notes": f"Published by the PPMO paper: {self.source_repository}, {self.source_file}",
        }
        if self.dimensions is not None:
            return defaults | {"task": f"ndcartpole/{self.dimensions}"}
        if not self.game:
            return defaults | {"task": f"gymnasium/{self.env}", "notes": f"{defaults['notes']}. {NO_STATISTICS}"}
        return defaults | {
            "task": f"ale/{PPMO_GAMES[self.game]}",
            "distribution": NATURE_DISTRIBUTION,
            "encoder_layers": self.level,
            "frames_first": True,
        }


MetaKind = TypeVar("MetaKind", HadesMeta, PpmoMeta)


def read_published(path: Path) -> dict[str, Any]:
    """What the `meta` of a published HaDES or PPMO run says, in this library's terms; empty for any other file.

    Args:
      path: an .npz file.

    Returns:
      `task`, `cloning`, `distribution`, `notes`, and where the run says it `rate`, `normaliser`, `reference_score`,
      `own_rate` (where the arrays hold none), `encoder_layers` and `frames_first`.

    Raises:
      FloppyError: if the file cannot be read, or has a value in its `meta` that is not allowed; it names the key.
    """
    arrays, _ = read_npz(
        path,
        lambda name, dtype: name == META and dtype.kind in "US",
        most=MOST_META_BYTES,
        remedy=f"leave {META} out",
    )
    meta = _object(path, arrays[META].ravel()) if META in arrays else {}
    if "overfit" in meta:
        return _checked(path, HadesMeta, meta).defaults()
    return _checked(path, PpmoMeta, meta).defaults() if "inner_steps" in meta else {}


def _object(path: Path, texts: Any) -> dict[str, Any]:
    """The JSON object of a file's meta; empty for text of any other kind, which is nobody's business."""
    text = texts[0] if len(texts) == 1 else ""
    try:
        text = text.decode() if isinstance(text, bytes) else str(text)
        found = json.loads(text) if text.lstrip().startswith("{") else {}
    except (ValueError, RecursionError) as error:
        raise FloppyError(
            f"{path} has a {META} that begins like a JSON object and is none ({type(error).__name__}): mend it, or "
            "leave it out."
        ) from error
    return dict(found)


def _checked(path: Path, kind: type[MetaKind], meta: dict[str, Any]) -> MetaKind:
    fields = dataclasses.fields(kind)
    missing = [each.name for each in fields if each.default is dataclasses.MISSING and each.name not in meta]
    if missing:
        raise FloppyError(
            f"{path} has a {META} like that of a published run, which lacks {listed(missing)}: add it, or leave {META} "
            "out and give the task and its options."
        )
    try:
        return kind(**{each.name: meta[each.name] for each in fields if each.name in meta})
    except FloppyError as error:
        raise FloppyError(f"{path}: {str(error).rstrip('.')}; correct it, or leave {META} out.") from error
