"""Commands about datasets and tasks: train, evaluate, import, show, merge, tasks; and completion for the shell."""

import contextlib
import dataclasses
import json
import math
import shutil
import textwrap
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax

from floppy.cli.base import Call, Command, Json, episodes_text, interval_text, score_text
from floppy.cli.parsing import completion
from floppy.cloning import Cloning, GradientStep
from floppy.cloning.base import CLONINGS, defaults_of_kind
from floppy.cloning.losses import LOSSES
from floppy.dataset import DistilledDataset, load, save
from floppy.dataset.card import NORMALISERS, SPANS
from floppy.drawing import draw, draw_text
from floppy.drawing.files import check_picture, save_picture
from floppy.drawing.scenes import groups_of
from floppy.errors import DivergedError, FloppyError
from floppy.evaluation.evaluate import evaluate, evaluate_policies, task_of_policies
from floppy.fields import as_seed, encode, one_of
from floppy.figure import printable
from floppy.files import check_new_file
from floppy.learner.distribution import parse_distribution
from floppy.play import has_own_limits
from floppy.run.interrupts import Watchdog
from floppy.tasks import SHORT_NAMES, family_descriptions, list_tasks
from floppy.tasks.base import Task
from floppy.tasks.faults import STEP_TIMEOUT, as_step_timeout, on_stall_now
from floppy.teach.arrays import import_npz
from floppy.teach.codec import card_cloning, unpack
from floppy.teach.merge import merge
from floppy.teach.policies import train
from floppy.teach.policy_file import is_policy_file, load_policies, save_policies
from floppy.teach.published import read_published


@contextlib.contextmanager
def _watched(seconds: float, task: Task | None = None) -> Iterator[Watchdog]:
    """Has the command end with a sentence if it hangs; of environments that Python steps every call has its own limit.

    Args:
      seconds: see `Watchdog`.
      task: that is played, if there is one.
    """
    given = as_step_timeout(seconds)
    limit = math.inf if task is not None and has_own_limits(task) else given
    with Watchdog(
        limit, on_stall_now() or warnings.warn, "give a longer --step-timeout, or fewer learners"
    ) as watchdog:
        yield watchdog


SHELLS = ("bash", "zsh", "fish")
LONG = 100
"""Characters from which a value of a card is printed over several lines."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Trains fresh policies on a dataset, with no environment involved, and times it."""

    name: ClassVar[str] = "train"
    positional: ClassVar[tuple[str, ...]] = ("dataset",)
    dataset: Path
    """The dataset's file."""
    learners: int = 1
    """How many fresh policies."""
    ensemble: bool = False
    """Whether they act as one, by the average of their action probabilities, or of their continuous actions; the file
    of --save holds them all and says so."""
    distribution: str = ""
    """How they are drawn; by default as the dataset's card says."""
    seed: int = 0
    """Seed of their initial weights."""
    step_timeout: float = STEP_TIMEOUT
    """Seconds after which the command ends if training hangs; it may take 6 times as long, for it is compiled too."""
    save: Path | None = None
    """Write the policies to this file, which `floppy evaluate` plays."""
    overwrite: bool = False
    """Replace the file of --save."""

    def run(self, call: Call) -> Json:
        """Trains twice: the second time shows what training takes once it is compiled."""
        as_seed(self.seed)
        if self.save is not None:
            check_new_file(self.save, overwrite=self.overwrite)
        dataset = load(self.dataset)
        distribution = parse_distribution(self.distribution) if self.distribution else None
        seconds = []
        with _watched(self.step_timeout) as watchdog:
            for _ in range(2):
                started = time.perf_counter()
                policies = train(dataset, self.seed, learners=self.learners, distribution=distribution)
                jax.block_until_ready(policies.weights)
                seconds.append(time.perf_counter() - started)
                watchdog.beat()
        diverged = int(policies.diverged().sum())
        if diverged == self.learners:
            raise DivergedError(
                f"All {diverged} policies diverged, their weights are not finite: give learners that the dataset is "
                "for (--distribution), or distil again."
            )
        if self.save is not None:
            save_policies(policies, self.save, overwrite=self.overwrite, ensemble=self.ensemble)
        return {
            "task": dataset.card.task,
            "dataset": str(self.dataset),
            "learners": self.learners,
            "ensemble": self.ensemble,
            "diverged": diverged,
            "seconds": seconds[1],
            "seconds_with_compilation": seconds[0],
            "policies": None if self.save is None else str(self.save),
        }

    def text(self, result: Json) -> str:
        """How long it took."""
        saved = "; --save FILE keeps them" if self.save is None else f"\n{self.save}"
        count = result["learners"]
        made = f"{count} fresh polic{'y' if count == 1 else 'ies'}" + (", one ensemble," if self.ensemble else "")
        made += f", {result['diverged']} of which diverged," if result["diverged"] else ""
        return (
            f"{made} for {result['task']} in {1000 * result['seconds']:.1f} ms "
            f"({result['seconds_with_compilation']:.1f} s with compilation){saved}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Trains fresh learners on a dataset and lets each of them play complete episodes.

    Policies that `floppy train --save` wrote play as they are.
    """

    name: ClassVar[str] = "evaluate"
    positional: ClassVar[tuple[str, ...]] = ("dataset",)
    dataset: Path
    """The file of a dataset, or of policies."""
    learners: int = 100
    """Fresh learners per distribution."""
    episodes: int | None = None
    """Episodes per learner; by default 100, or all test images."""
    distribution: str = "card"
    """Of the learners, by comma: card (the first distribution on the card), all (the six of the PPMO paper's Table 1),
    a name, or pairs such as width=128:depth=3:initialiser=xavier."""
    task: str = ""
    """The task to be played: of a merged dataset one of its tasks; else the dataset's own, or another one with the same
    spaces."""
    ensemble: int = 1
    """Clones per learner, which acts by the average of their action probabilities, or of their continuous actions."""
    seed: int = 0
    """Seed of the evaluation; never used in distillation."""
    greedy: bool = False
    """Most likely actions in place of sampled ones; answers to images always are."""
    cloning: str = one_of("", lambda: ("", *CLONINGS))
    """How learners are trained; by default as the dataset was made for."""
    loss: str = one_of("", lambda: ("", *LOSSES))
    """Loss of the cloning; by default the card's, else the kind's own."""
    steps: int | None = None
    """Cloning steps; by default the card's, else the kind's own number."""
    rate: float | None = None
    """Rate of the cloning steps; by default the file's, else what suits the kind."""
    step_timeout: float = STEP_TIMEOUT
    """Seconds after which the command ends if nothing moves: a reset or step of a host environment, or an evaluation
    that also takes 20 times as long as any before it; the first one, which compiles, may take 6 times as long."""

    def run(self, call: Call) -> Json:
        """Evaluates."""
        if is_policy_file(self.dataset):
            return self._play()
        dataset = load(self.dataset)
        played = unpack(dataset).task(self.task)
        cloning = self.recipe(dataset)
        with _watched(self.step_timeout, played) as watchdog:
            scores = evaluate(
                dataset,
                distributions=self.distribution,
                learners=self.learners,
                episodes=self.episodes,
                seed=self.seed,
                greedy=self.greedy,
                task=self.task,
                ensemble=self.ensemble,
                cloning=cloning,
                rate=self.rate,
                progress=lambda _: watchdog.beat(),
            )
        result = {"task": played.task_id, "distilled_for": dataset.card.task, "dataset": str(self.dataset)}
        more: Json = {"ensemble": self.ensemble} if self.ensemble > 1 else {}
        more |= {} if cloning is None else {"cloning": encode(cloning)}
        return result | more | {"distributions": {name: score.as_dict() for name, score in scores.items()}}

    def recipe(self, dataset: DistilledDataset) -> Cloning | None:
        """The cloning that is asked for; None for the card's."""
        if not (self.cloning or self.loss or self.steps is not None or self.rate is not None):
            return None
        return recipe_with(card_cloning(dataset), self.cloning, self.loss, self.steps)

    def _play(self) -> Json:
        """Lets the policies of a file play."""
        drawn = ("distribution", "learners", "ensemble", "cloning", "loss", "steps", "rate")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        if self.sources.network:  # which has become the default distribution
            defaults["distribution"] = self.sources.network
        if given := [f"--{name}" for name in drawn if getattr(self, name) != defaults[name]]:
            raise FloppyError(f"{self.dataset} holds policies that are trained already: leave {', '.join(given)} out.")
        policies = load_policies(self.dataset)
        played = task_of_policies(policies, self.task)
        options: Json = {"task": self.task, "episodes": self.episodes, "seed": self.seed, "greedy": self.greedy}
        with _watched(self.step_timeout, played):
            score = evaluate_policies(policies, **options).as_dict()
        return {"task": played.task_id, "trained_for": policies.task, "policies": str(self.dataset), "score": score}

    def text(self, result: Json) -> str:
        """One line per distribution, or one for policies."""
        task = result["task"]
        made_for = result.get("distilled_for") or result["trained_for"]
        # A merged dataset's task is one of several, joined by +.
        note = "" if task in made_for.split("+") else f" (made for {made_for})"
        if "policies" in result:
            score = result["score"]
            what = "one policy" if score["learners"] == 1 else f"{score['learners']} policies"
            return f"{task}{note}: {what} x {episodes_text(task, score)}\n{_evaluated(task, score)}"
        lines: list[str] = []
        for name, score in result["distributions"].items():
            what = "fresh learners" if self.ensemble == 1 else f"ensembles of {self.ensemble} fresh learners"
            lines = lines or [f"{task}{note}: {self.learners} {what} x {episodes_text(task, score)} each"]
            lines.append(f"{name:>13}: {_evaluated(task, score)}")
        return "\n".join(lines)


def _evaluated(task: str, score: Json) -> str:
    """A score with all that an evaluation knows of it."""
    spread = "" if score["learners"] == 1 else f", {interval_text(score)}, the worst learner {score['worst']:.1f}"
    share = score["max_share"]
    perfect = "" if share is None else f", {share:.0%} of learners always reach the maximum"
    failed = f", {score['diverged']} learners diverged" if score["diverged"] else ""
    return f"{score_text(task, score)}{spread}{perfect}{failed}"


def recipe_with(cloning: Any, kind: str, loss: str, steps: int | None) -> Cloning:
    """A cloning, or that of another kind's defaults, with what is given in its place; empty and None: nothing is."""
    if kind not in ("", type(cloning).__name__):
        cloning = defaults_of_kind(kind)["cloning"]
    given = {"loss": loss, "steps": steps}
    changes: Json = {name: value for name, value in given.items() if value not in ("", None)}
    if unknown := changes.keys() - {field.name for field in dataclasses.fields(cloning)}:
        options = " and ".join(f"--{name}" for name in sorted(unknown))
        raise FloppyError(f"{type(cloning).__name__} has no {options}: leave that out, or choose another --cloning.")
    made: Cloning = dataclasses.replace(cloning, **changes)
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import(Command):
    """Turns arrays from elsewhere, in an .npz file, into a floppy dataset.

    Arrays read: observations [k, *obs]; targets, actions or y_mean [k, a], of discrete actions also their numbers [k];
    where present inner_lr or inner_rate [], y_logstd or log_std [a], obs_mean and obs_var [*obs]. The text meta of a
    published HaDES or PPMO run gives all defaults, and names an encoder's arrays.
    """

    name: ClassVar[str] = "import"
    positional: ClassVar[tuple[str, ...]] = ("file",)
    file: Path
    """The .npz file."""
    out: Path
    """The .safetensors file to write."""
    task: str = ""
    """Id of the task that the dataset is of; a published run names it itself."""
    cloning: str = one_of("", lambda: ("", *CLONINGS))
    """How fresh policies learn from it; by default as a published run says, else by a GradientStep."""
    loss: str = one_of("", lambda: ("", *LOSSES))
    """Loss of the cloning; by default the published run's, else the kind's own."""
    steps: int | None = None
    """Cloning steps; by default the published run's, else the kind's own number."""
    rate: float | None = None
    """Rate of the cloning steps; by default the file's."""
    distribution: str = ""
    """The learners that the dataset is for; by default as a published run says, else lambda."""
    normaliser: str = one_of("", ("", *NORMALISERS))
    """Of the observations; by default as a published run says, else frozen if the file has statistics."""
    notes: str = ""
    """Where it comes from."""
    overwrite: bool = False
    """Replace the file of --out."""

    def run(self, call: Call) -> Json:
        """Reads, checks against the task, and writes."""
        dataset = import_npz(
            self.file,
            self.task,
            cloning=self.recipe(),
            rate=self.rate,
            distribution=self.distribution,
            normaliser=self.normaliser,
            notes=self.notes,
            command=call.typed,
        )
        save(dataset, self.out, overwrite=self.overwrite)
        return {"task": dataset.card.task, "dataset": str(self.out), "examples": dataset.examples}

    def recipe(self) -> Cloning:
        """The published run's cloning, else that of the kind's defaults, with what is given in its place."""
        published: Any = read_published(self.file).get("cloning") or GradientStep()
        return recipe_with(published, self.cloning, self.loss, self.steps)

    def text(self, result: Json) -> str:
        """What was written."""
        return f"{result['examples']} examples of {result['task']}\n{result['dataset']}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show(Command):
    """Shows a dataset: what its card says in short, and its examples; --save draws them."""

    name: ClassVar[str] = "show"
    positional: ClassVar[tuple[str, ...]] = ("dataset",)
    dataset: Path
    """The dataset's file."""
    examples: tuple[int, ...] = ()
    """Numbers of the examples that are shown, from 0; by default the first ones."""
    config: bool = False
    """Print the whole card, with the configuration that made the dataset, in place of the examples."""
    save: Path | None = None
    """Draw the examples to this file, of which the name ends in .png, .svg or .pdf."""
    overwrite: bool = False
    """Replace the file of --save."""

    def run(self, call: Call) -> Json:
        """Reads and checks the file, and draws it."""
        chosen, more = self.examples or None, {}
        if self.save is not None:
            check_picture(self.save, overwrite=self.overwrite)
        dataset = load(self.dataset)
        if self.save is not None:
            save_picture(draw(dataset, chosen), self.save, overwrite=self.overwrite)
            more = {"picture": str(self.save)}
        elif chosen:
            groups_of(dataset, chosen)  # whose complaint belongs here, before anything is printed
        return dataset.describe() | more

    def text(self, result: Json) -> str:
        """The card in short and the examples, or all of the card."""
        if self.config:
            return self._whole_card(result)
        dataset = load(self.dataset)
        width = shutil.get_terminal_size((100, 24)).columns
        card = (line if len(line) <= width else f"{line[: width - 1]}…" for line in _card_lines(dataset, result))
        drawn = draw_text(dataset, self.examples or None, width=width)
        if not dataset.examples:
            drawn = "\nThe file holds no examples, but all layers of a trained policy."
        hint = "--save FILE.png draws them, --config prints all of the card."
        return "\n".join([str(self.dataset), *card, drawn, "", hint if self.save is None else str(self.save)])

    def _whole_card(self, result: Json) -> str:
        lines = [f"{self.dataset}: {result['examples']} examples, {result['floats']} floats"]
        lines += [f"  {name} {list(tensor['shape'])}" for name, tensor in result["tensors"].items()]
        for key, value in result["card"].items():
            text = json.dumps(value)
            lines.append(f"  {key}: {text if len(text) < LONG else textwrap.indent(json.dumps(value, indent=2), '  ')}")
        return "\n".join(lines)


def _card_lines(dataset: DistilledDataset, result: Json) -> Iterator[str]:
    """What matters of a card, a line each."""
    card = dataset.card
    shapes = ", ".join(f"{name} {tensor['shape']}" for name, tensor in result["tensors"].items())
    entries = {"task": card.task, "examples": f"{result['examples']}, {result['floats']} numbers in all: {shapes}"}
    if card.score is not None:
        mean, sd = (f"{each:.1f}" if isinstance(each, int | float) else each for each in _of(card.score, "mean", "sd"))
        learners, episodes = _of(card.score, "learners", "episodes")
        entries["score"] = f"{mean} (sd {sd}) of {learners} fresh learners x {episodes} episodes"
    loss = f", loss {name}" if (name := card.cloning.get("loss")) else ""
    entries |= {"cloning": f"{card.cloning['kind']}{loss}", "made by": card.algorithm["name"]}
    entries |= {"command": card.command, "notes": card.notes}
    for name, value in entries.items():
        if value:
            yield f"  {name:<9} {printable(value)}"


def _of(entry: Json, *names: str) -> list[Any]:
    return [entry[name] for name in names]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tasks(Command):
    """Lists the tasks."""

    name: ClassVar[str] = "tasks"

    def run(self, call: Call) -> Json:
        """Every known id with its short name."""
        short = {full: name for name, full in SHORT_NAMES.items()}
        return {"tasks": [{"task": task, "short_name": short.get(task)} for task in list_tasks()]}

    def text(self, result: Json) -> str:
        """One line per task, then one per family."""
        lines = [f"{entry['task']:<34}{entry['short_name'] or ''}".rstrip() for entry in result["tasks"]]
        families = [f"{prefix}/: {about}" for prefix, about in family_descriptions().items()]
        return "\n".join([*lines, "", *families])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merge(Command):
    """Merges datasets of different tasks into one, from which a single policy learns them all."""

    name: ClassVar[str] = "merge"
    positional: ClassVar[tuple[str, ...]] = ("datasets",)
    datasets: tuple[Path, ...]
    """Their files, two or more, distilled for the same learners and with the same cloning."""
    out: Path
    """The .safetensors file to write."""
    notes: str = ""
    """Anything for the card."""
    overwrite: bool = False
    """Replace the file of --out."""

    def run(self, call: Call) -> Json:
        """Reads them all, merges and writes."""
        merged = merge([load(path) for path in self.datasets], notes=self.notes, command=call.typed)
        save(merged, self.out, overwrite=self.overwrite)
        return {
            "task": merged.card.task,
            "dataset": str(self.out),
            "examples": merged.examples,
            "blocks": merged.card.blocks,
        }

    def text(self, result: Json) -> str:
        """What was written, and what is whose."""
        lines = [f"{result['examples']} examples of {len(result['blocks'])} tasks"]
        for block in result["blocks"]:
            spans = [f"{name} {first} to {first + count - 1}" for name in SPANS for first, count in [block[name]]]
            lines.append(f"  {block['task']}: {', '.join(spans)}, weight {block['weight']:.3g}")
        return "\n".join([*lines, result["dataset"]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion(Command):
    """Prints a script by which the shell completes commands and options."""

    name: ClassVar[str] = "completion"
    positional: ClassVar[tuple[str, ...]] = ("shell",)
    shell: str = dataclasses.field(metadata=one_of("", SHELLS).metadata)
    """The shell. In bash `source <(floppy completion bash)` makes it known to the session."""

    def run(self, call: Call) -> Json:
        """Writes the script, which knows the options of every command by their defaults."""
        parsers = {
            name: (command.parser(["cartpole"]), (command.__doc__ or "").splitlines()[0])
            for name, command in call.commands.items()
        }
        return {"shell": self.shell, "script": completion(self.shell, parsers)}

    def text(self, result: Json) -> str:
        """The script."""
        return str(result["script"])
