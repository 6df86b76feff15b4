"""The command `zoo`: the datasets that come with the package."""

import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

from floppy import zoo
from floppy.cli.base import Call, Command, Json
from floppy.errors import FloppyError
from floppy.fields import one_of
from floppy.zoo.verification import FALSE_ALARM

LIST, SHOW, COPY, VERIFY = ACTIONS = ("list", "show", "copy", "verify")

OPTIONS = {"quick": (VERIFY,), "seed": (VERIFY,), "overwrite": (COPY,)}
"""What they go with."""

WIDTH = 110
"""Of a card."""
FACTS = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * 15, break_long_words=False, break_on_hyphens=False)
"""How its facts are wrapped, below their names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zoo(Command):
    """Lists, shows, copies and verifies the datasets that come with the package.

    `floppy zoo list` has them all with their scores, `floppy zoo show NAME` tells all about one, and `floppy zoo copy
    NAME FILE` writes it to a file. `floppy zoo verify [NAME ...]` trains fresh networks on datasets, scores them on
    this machine and ends with exit code 1 where a score falls short of what the card states: by a one-sided t-test over
    networks, with a limit by which a false alarm over all of them has a chance of 1%. A name stands for its file in
    every command that takes a dataset, if no file is called so.
    """

    name: ClassVar[str] = "zoo"
    positional: ClassVar[tuple[str, ...]] = ("action", "names")

    action: str = dataclasses.field(metadata=one_of("", ACTIONS).metadata)
    """What to do."""
    names: tuple[str, ...] = ()
    """Of datasets; for copy a name and the new file."""
    quick: bool = False
    """With verify, a few datasets of every family, few networks and episodes."""
    seed: int | None = None
    """With verify, the seed of the evaluations; by default that of the score on the card."""
    overwrite: bool = False
    """With copy, replace the file."""

    def run(self, call: Call) -> Json:
        """Does what the action says."""
        for name, actions in OPTIONS.items():
            given = getattr(self, name)
            if given is not None and given is not False and self.action not in actions:
                raise FloppyError(
                    f"--{name} goes with zoo {' or '.join(actions)}, not with {self.action}: leave it out."
                )
        does = {LIST: self._list, SHOW: self._show, COPY: self._copy, VERIFY: self._verify}
        return {"action": self.action} | does[self.action]()

    def exit_code(self, result: Json) -> int:
        """1 where a dataset falls short of its card."""
        return int(any(each["falls_short"] for each in result.get("verified", ())))

    def _list(self) -> Json:
        self._check_names(0, "no name")
        return {"datasets": [zoo.entry(name).as_json() for name in zoo.names()]}

    def _show(self) -> Json:
        self._check_names(1, "one name, as in `floppy zoo show cartpole`")
        entry = zoo.entry(self.names[0])
        return {"dataset": entry.as_json() | {"path": str(entry.path)}}

    def _copy(self) -> Json:
        self._check_names(2, "a name and a file, as in `floppy zoo copy cartpole cartpole.safetensors`")
        zoo.copy(*self.names, overwrite=self.overwrite)
        return {"name": zoo.entry(self.names[0]).name, "dataset": str(Path(self.names[1]))}

    def _verify(self) -> Json:
        found = zoo.verify(self.names or None, quick=self.quick, seed=self.seed, progress=_say)
        played = sum(each.measured is not None for each in found)
        return {
            "verified": [each.as_json() | {"falls_short": each.falls_short(max(played, 1))} for each in found],
            "limit": FALSE_ALARM / max(played, 1),
        }

    def _check_names(self, count: int, wanted: str) -> None:
        if len(self.names) != count:
            raise FloppyError(f"zoo {self.action} takes {wanted}, got {len(self.names)} of them.")

    def text(self, result: Json) -> str:
        """A table, a card, or what was written."""
        texts: Any = {
            LIST: lambda: _list_text(result["datasets"]),
            SHOW: lambda: _card_text(result["dataset"]),
            COPY: lambda: result["dataset"],
            VERIFY: lambda: _verified_text(result),
        }
        return str(texts[self.action]())


def _say(done: int, count: int, name: str) -> None:
    print(f"{done}/{count}: {name}", file=sys.stderr, flush=True)


def _list_text(datasets: list[Json]) -> str:
    rows: list[tuple[str, ...]] = []
    for each in datasets:
        for number, score in enumerate(each["scores"]):
            first = (each["name"], str(each["examples"])) if number == 0 else ("", "")
            numbers = (_number(score["random"]), _number(score["published"]))
            rows.append((first[0], score["task"], first[1], _spread(score), *numbers))
    table = _table(("name", "task", "examples", "score", "random", "published"), rows, left=2)
    return f"{table}\n\n`floppy zoo show NAME` tells all about one; its name will do wherever a dataset is asked for."


def _card_text(entry: Json) -> str:
    lines = [f"{entry['name']}: {entry['examples']} examples of {entry['task']}"]
    for score in entry["scores"]:
        low, high = score["interval"]
        reached = (
            f"  {score['task']}: {score['unit']} {_spread(score)}, 95% interval {_number(low)} to {_number(high)}, "
            f"over {score['learners']} fresh networks x {score['episodes']} (evaluation seed {score['seed']})"
        )
        lines += textwrap.wrap(reached, WIDTH, subsequent_indent="    ")
        beside = {"random play": score["random"], "plain PPO": score["ppo"], "published": score["published"]}
        known = [f"{what} {_number(value)}" for what, value in beside.items() if value is not None]
        where = f" ({score['where']})" if score["where"] else ""
        lines.append(f"    {', '.join(known)}{where}")
    seeds = [f"{seed} ({_number(mean)})" for seed, mean in zip(entry["seeds"], entry["seed_means"], strict=True)]
    taught = ", a teacher's included" if entry["teacher"] else ""
    chosen = f", the best of seeds {', '.join(seeds)}" if len(seeds) > 1 else ""
    facts = {
        "also called": ", ".join(entry["aliases"]),
        "method": entry["method"],
        "encoder": f"{entry['encoder_layers']} trained layers" if entry["encoder_layers"] else "none",
        "teacher": entry["teacher"] or "none",
        "env steps": "–" if entry["env_steps"] is None else f"{entry['env_steps']:,}{taught}",
        "command": entry["command"],
        "seed": "–" if entry["seed"] is None else f"{entry['seed']}{chosen}",
        "versions": ", ".join(entry["versions"]),
        "licence": entry["licence"],
        "source": entry["source"],
        "sha256": entry["sha256"],
        "file": entry["path"],
    }
    for name, value in facts.items():
        lines += FACTS.wrap(f"  {name + ':':<13}{value}")
    return "\n".join(lines)


def _verified_text(result: Json) -> str:
    rows: list[tuple[str, ...]] = []
    skipped: dict[str, list[str]] = {}
    for each in result["verified"]:
        if each["skipped"]:
            skipped.setdefault(each["skipped"], []).append(each["name"])
            continue
        apart = each["standard_errors"]
        verdict = "FALLS SHORT" if each["falls_short"] else "ok"
        measured = f"{_spread(each['measured'])} ({each['measured']['learners']} x {each['measured']['episodes']})"
        rows.append((each["name"], each["task"], _spread(each["stated"]), measured, _apart(apart), verdict))
    head = ("name", "task", "stated", "measured", "std errors", "")
    lines = [_table(head, rows, left=2)] if rows else []
    lines += [f"skipped {', '.join(dict.fromkeys(names))}: {why}" for why, names in skipped.items()]
    short = sum(each["falls_short"] for each in result["verified"])
    what = f"{short} fall short of their cards" if short else "none falls short of its card"
    limit = f"p below {result['limit']:.1g}, a false alarm in {FALSE_ALARM:.0%} of verifications"
    return "\n".join([*lines, f"{len(rows)} scores: {what} ({limit})."])


def _apart(standard_errors: float | None) -> str:
    return "–" if standard_errors is None else f"{standard_errors:+.1f}"


def _spread(score: Json) -> str:
    return f"{_number(score['mean'])} ± {_number(score['sd'])}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], *, left: int) -> str:
    """Rows below each other: the first columns begin, the others end at the same place."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join(lines)
