"""What distilled datasets are good for, as studies: each measures one question and keeps its table and figure."""

import importlib
from typing import TYPE_CHECKING, Any

from floppy.studies.registry import STUDIES as STUDIES

if TYPE_CHECKING:
    from floppy.studies.base import Row as Row
    from floppy.studies.base import Study as Study
    from floppy.studies.budget import Budget as Budget
    from floppy.studies.compare import Compare as Compare
    from floppy.studies.cost import Cost as Cost
    from floppy.studies.ensemble import Ensemble as Ensemble
    from floppy.studies.explain import Explain as Explain
    from floppy.studies.families import Families as Families
    from floppy.studies.folder import draw_study as draw_study
    from floppy.studies.folder import read_rows as read_rows
    from floppy.studies.folder import read_study as read_study
    from floppy.studies.folder import run_study as run_study
    from floppy.studies.forgetting import Forgetting as Forgetting
    from floppy.studies.minimum_size import MinimumSize as MinimumSize
    from floppy.studies.multitask import Multitask as Multitask
    from floppy.studies.rollback import Rollback as Rollback
    from floppy.studies.search import Search as Search
    from floppy.studies.transfer import Transfer as Transfer
    from floppy.studies.warm_start import WarmStart as WarmStart

_HOMES = {"Row": "base", "Study": "base"} | dict.fromkeys(
    ("draw_study", "read_rows", "read_study", "run_study"), "folder"
)
_HOMES |= {place.kind: place.module for place in STUDIES.shipped.values()}
"""Modules of the public names. They are imported when a name is first asked for (PEP 562), and with them JAX."""

__all__ = sorted(["STUDIES", *_HOMES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A public name, imported from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'floppy.studies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"floppy.studies.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
