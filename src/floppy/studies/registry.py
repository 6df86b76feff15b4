"""The list of studies. Their modules, which import JAX, are imported when a study is asked for, not for its name."""

import importlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from floppy.errors import must_be_one_of
from floppy.fields import Registry
from floppy.studies.base import Study


class Shipped(NamedTuple):
    """A study of this library."""

    module: str
    """In `floppy.studies`."""
    kind: str
    """Its class."""
    summary: str
    """The first line of its docstring, for the overview of commands."""


class Studies(Registry[type[Study]]):
    """Studies by their names on the command line; `register` adds one of your own."""

    def __init__(self, shipped: Iterable[tuple[str, Shipped]]) -> None:
        super().__init__("study")
        self.shipped = dict(shipped)
        """The library's own, by name."""

    def summary(self, name: str) -> str:
        """What a study does, in a sentence; needs no import of its module."""
        if name in self.shipped:
            return self.shipped[name].summary
        return (self[name].__doc__ or "").partition("\n")[0]

    def find(self, name: Any) -> type[Study]:
        """The study of a name.

        Raises:
          FloppyError: if there is none; it lists those that there are.
        """
        if name not in self:
            raise must_be_one_of(self.what, name, self)
        return self[name]

    def __getitem__(self, name: str) -> type[Study]:
        if name in self.shipped and name not in self._members:
            place = self.shipped[name]
            self.register(name, getattr(importlib.import_module(f"floppy.studies.{place.module}"), place.kind))
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self.shipped or name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.shipped, *self._members)))

    def __len__(self) -> int:
        return len(self.shipped.keys() | self._members.keys())


STUDIES = Studies(
    {
        "transfer": Shipped(
            "transfer", "Transfer", "Scores datasets with other widths, rates and step counts than they were made for."
        ),
        "cost": Shipped(
            "cost", "Cost", "Compares what a dataset and its clones cost with a run of plain PPO for every agent."
        ),
        "compare": Shipped(
            "compare",
            "Compare",
            "Draws the learning curves of HaDES, PPMO, neuroevolution and PPO over outer and over environment steps.",
        ),
        "budget": Shipped("budget", "Budget", "Scores datasets of several sizes, beside PPO and neuroevolution."),
        "search": Shipped(
            "search",
            "Search",
            "Ranks architectures by policies cloned from a dataset and by PPO on its task, and compares the rankings.",
        ),
        "minimum-size": Shipped(
            "minimum_size",
            "MinimumSize",
            "Distils a task into ever more examples and finds the least number from which fresh learners learn it.",
        ),
        "multitask": Shipped(
            "multitask",
            "Multitask",
            "Scores learners of merged datasets on each task, against learners of its own dataset and of the other "
            "tasks'.",
        ),
        "families": Shipped(
            "families", "Families", "Scores datasets with networks of other kinds than they were distilled for."
        ),
        "warm-start": Shipped(
            "warm_start",
            "WarmStart",
            "Lets plain PPO begin with clones of a dataset and with fresh networks, and compares what both take.",
        ),
        "forgetting": Shipped(
            "forgetting",
            "Forgetting",
            "Scores networks that learn tasks one after the other, each from its dataset alone or with all earlier "
            "ones.",
        ),
        "ensemble": Shipped(
            "ensemble",
            "Ensemble",
            "Scores ensembles of ever more fresh learners, against single ones.",
        ),
        "explain": Shipped(
            "explain",
            "Explain",
            "Shows which examples matter, to which features the score is sensitive, and what policies do where.",
        ),
        "rollback": Shipped(
            "rollback",
            "Rollback",
            "Distils a task once for every number of encoder layers, from the whole network down to none.",
        ),
    }.items()
)
"""Every study: the command line, the reader of a study's folder and the tests go by it."""
