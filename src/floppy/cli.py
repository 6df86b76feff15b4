"""The command line. Results go to stdout, progress and complaints to stderr; bad input is one sentence and exit code 2.

Every command is a dataclass: its fields are the options (through tyro), its `run` does the work and returns what
`--json` prints. The options of `distill` and `baseline` are the fields of `DistillConfig`.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import io
import itertools
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import jax
import numpy as np
import safetensors.numpy
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import Positional, arg

from floppy.cache import enable_compilation_cache
from floppy.card import SPANS
from floppy.cloning import Cloning, GradientStep
from floppy.dataset import load, save, write_atomically
from floppy.distill import DATASET_NAME, DistillConfig, DistillResult, distill
from floppy.errors import FloppyError, check_number, check_seed, shown
from floppy.evaluate import evaluate, evaluate_random
from floppy.importing import import_npz, read_published
from floppy.keys import named_key
from floppy.learners import NAMED_DISTRIBUTIONS, parse_distribution, parse_distributions
from floppy.merging import merge
from floppy.outer import OUTER_LOOPS
from floppy.parallel import Processes, is_first_process
from floppy.recipes import apply_budget, neuroevolution_baseline, ppo_baseline, recipe
from floppy.studies import STUDIES, Study, draw_study, read_study, rollback, run_study
from floppy.studies.base import FIGURE_NAME, SUMMARY_NAME
from floppy.studies.reproduce import Reproduce
from floppy.tasks import SHORT_NAMES, list_tasks, make_task
from floppy.tasks.base import Discrete, SupervisedTask
from floppy.tasks.images import DATA_VARIABLE
from floppy.tasks.registry import import_module
from floppy.train import CLONING_KINDS, train

USER_ERROR = 2
Json = dict[str, Any]


class Command:
    """What all commands share."""

    name: ClassVar[str]
    json: bool

    def run(self, typed: str) -> Json:
        """Does the work; `typed` is the command line, for the card. The result is what `--json` prints."""
        raise NotImplementedError

    def text(self, result: Json) -> str:
        """The result for people."""
        raise NotImplementedError

    @classmethod
    def parse(cls, words: list[str]) -> "Command":
        """The command from its words, its name left out."""
        return parse_options(cls, words, f"floppy {cls.name}")


@dataclasses.dataclass(frozen=True)
class TaskSources:
    """Where tasks come from that the library does not bring along."""

    modules: Annotated[str, arg(name="import")] = ""
    """Python modules to import first, by comma, from this folder or installed: they may register environments with
    Gymnasium, or tasks with floppy.tasks.register."""
    data: str = ""
    """Folder of the files of images/mnist and images/fashion-mnist; by default what FLOPPY_DATA names."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How distillations start and end."""

    outer_loop: Annotated[str, arg(name="outer")] = ""
    """The outer loop, with the recipe of its name: ppmo (meta-gradients, the default), hades (evolution), or supervised
    (meta-gradients on labelled images, their default); each has options of its own, shown by --outer NAME --help."""
    cloning_kind: Annotated[str, arg(name="cloning")] = ""
    """Another kind of cloning than the recipe's, with defaults of its own: GradientStep, AdamSteps or ImplicitStep."""
    recipe: str = ""
    """Where the defaults come from: ppmo, ppmo-robust, ppmo-paper, ppmo-published; hades, hades-brax, hades-minatar;
    supervised."""
    budget: str = ""
    """When to stop a run: a number of steps over which rates are annealed (500steps), or a time (60s, 10m); the last
    evaluation (--score-learners, --score-episodes) comes on top. A time ends it at the next of the evaluations, which
    come every --evaluate-every steps, or on host tasks at the next step."""
    resume: bool = False
    """Go on with what is in --out."""
    overwrite: bool = False
    """Replace what is in --out."""


@dataclasses.dataclass(frozen=True)
class Distill(Command):
    """Distils a task into a few synthetic examples. The defaults shown are those of the recipe for TASK."""

    name: ClassVar[str] = "distill"
    config: Annotated[DistillConfig, arg(name="")]
    options: Annotated[RunOptions, arg(name="")] = dataclasses.field(default_factory=RunOptions)
    """How the run starts and ends."""
    out: Path | None = None
    """Folder of the run; by default runs/TASK-kK-seedS."""
    shared: Annotated[Processes, arg(name="")] = dataclasses.field(default_factory=Processes)
    """The processes that share the run."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    @classmethod
    def parse(cls, words: list[str]) -> Command:
        """Reads the task and the recipe first, for they give the other options their defaults."""
        join_processes(words)
        return parse_options(cls, words, "floppy distill", default=cls(default_config(words, "floppy distill")))

    def run(self, typed: str) -> Json:
        """Distils, and writes the run's folder."""
        config, time_limit = apply_budget(self.config, self.options.budget)
        folder = self.out or Path("runs") / run_name(config)
        result = distill_with_progress(
            config,
            folder,
            time_limit=time_limit,
            command=typed,
            resume=self.options.resume,
            overwrite=self.options.overwrite,
        )
        _say_how_to_go_on(result)
        return {
            "task": result.dataset.card.task,
            "dataset": str(folder / DATASET_NAME),
            "score": result.dataset.card.score,
            "outer_steps": result.outer_steps,
            "env_steps": result.env_steps,
            "seconds": result.seconds,
            "finished": result.finished,
            "interrupted": result.interrupted,
        }

    def text(self, result: Json) -> str:
        """The score and where the dataset lies."""
        score = result["score"]
        return (
            f"{result['task']}: {_mean(result, score)} over {score['learners']} fresh learners x "
            f"{_episodes(result, score)}, after {result['outer_steps']} outer steps ({result['env_steps']:,} "
            f"{'images seen' if _has_images(result) else 'environment steps'}) in "
            f"{result['seconds']:.0f} s\n{result['dataset']}"
        )


@dataclasses.dataclass(frozen=True)
class Rollback(Command):
    """Distils a task once for every number of encoder layers, from the whole network down to none."""

    name: ClassVar[str] = "rollback"
    config: Annotated[DistillConfig, arg(name="")]
    levels: str = ""
    """Numbers of encoder layers, by comma, such as 2,1,0; by default all of them."""
    options: Annotated[RunOptions, arg(name="")] = dataclasses.field(default_factory=RunOptions)
    """How the runs start and end."""
    out: Path | None = None
    """Folder of the runs, one in each of l0, l1 and so on; by default runs/TASK-rollback-kK-seedS."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    @classmethod
    def parse(cls, words: list[str]) -> Command:
        """As for distill."""
        return parse_options(cls, words, "floppy rollback", default=cls(default_config(words, "floppy rollback")))

    def run(self, typed: str) -> Json:
        """Runs the study."""
        config, time_limit = apply_budget(self.config, self.options.budget)
        levels = rollback(
            config,
            self.out or Path("runs") / run_name(config, "rollback-"),
            levels=[parse_level(word) for word in self.levels.split(",")] if self.levels else [],
            resume=self.options.resume,
            overwrite=self.options.overwrite,
            time_limit=time_limit,
            command=typed,
            distil=_distill_level,
        )
        if not all(level.finished for level in levels):
            print("floppy: stopped early; the same command with --resume goes on", file=sys.stderr)
        rows = [dataclasses.asdict(level) | {"dataset": str(level.dataset)} for level in levels]
        interrupted = any(level.interrupted for level in levels)
        return {"task": make_task(config.task).task_id, "levels": rows, "interrupted": interrupted}

    def text(self, result: Json) -> str:
        """A line per level."""
        lines = [f"{result['task']}: encoder layers, examples, score"]
        lines += [
            f"{row['encoder_layers']:>3} {row['examples']:>4}  {_mean(result, row['score'])}"
            for row in result["levels"]
        ]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Train(Command):
    """Trains fresh policies on a dataset, with no environment involved, and times it."""

    name: ClassVar[str] = "train"
    dataset: Positional[Path]
    """The dataset's file."""
    learners: int = 1
    """How many fresh policies."""
    ensemble: bool = False
    """Whether they are to act as one, by the average of their action probabilities, or of their continuous actions; the
    file of --save holds them all and says so."""
    distribution: str = ""
    """How they are drawn; by default as the dataset's card says."""
    seed: int = 0
    """Seed of their initial weights."""
    save: Path | None = None
    """Write the policies to this .safetensors file: layers/<i>/<kernel|bias> with a leading axis of learners."""
    overwrite: bool = False
    """Replace the file of --save."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Trains twice: the second time shows what training takes once it is compiled."""
        check_seed(self.seed)
        if self.save is not None and self.save.exists() and not self.overwrite:
            raise FloppyError(f"{self.save} exists: give --overwrite or another name.")
        dataset = load(self.dataset)
        distribution = parse_distribution(self.distribution) if self.distribution else None
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            key = named_key(jax.random.key(self.seed), "train")
            policies = train(dataset, key, learners=self.learners, distribution=distribution)
            jax.block_until_ready(policies.weights)
            seconds.append(time.perf_counter() - started)
        if self.save is not None:
            tensors = {
                f"layers/{index}/{name}": np.asarray(array)
                for index, layer in enumerate(policies.weights.layers)
                for name, array in layer.items()
            }
            tensors["skip"] = np.stack([np.asarray(skip) for skip in policies.weights.skip], axis=-1)
            tensors["log_std"] = np.asarray(policies.weights.log_std)
            if policies.statistics is not None:
                tensors["obs_mean"] = np.asarray(policies.statistics.mean)
                tensors["obs_var"] = np.asarray(policies.statistics.var)
            about = {
                "task": dataset.card.task,
                "normaliser": dataset.card.normaliser,
                "network": json.dumps(dataclasses.asdict(policies.network.distribution)),
                "seed": str(self.seed),
            }
            if dataset.card.blocks:
                about["blocks"] = json.dumps(dataset.card.blocks)
            if self.ensemble:
                is_discrete = isinstance(policies.network.actions, Discrete)
                about["ensemble"] = "mean action probabilities" if is_discrete else "mean actions"
            write_atomically(self.save, safetensors.numpy.save(tensors, metadata=about))
        return {
            "task": dataset.card.task,
            "dataset": str(self.dataset),
            "learners": self.learners,
            "ensemble": self.ensemble,
            "seconds": seconds[1],
            "seconds_with_compilation": seconds[0],
            "policies": None if self.save is None else str(self.save),
        }

    def text(self, result: Json) -> str:
        """How long it took."""
        saved = "" if self.save is None else f"\n{self.save}"
        made = f"{result['learners']} fresh policies" + (", one ensemble," if self.ensemble else "")
        return (
            f"{made} for {result['task']} in {1000 * result['seconds']:.1f} ms "
            f"({result['seconds_with_compilation']:.1f} s with compilation){saved}"
        )


@dataclasses.dataclass(frozen=True)
class Evaluate(Command):
    """Trains fresh learners on a dataset and lets each of them play complete episodes."""

    name: ClassVar[str] = "evaluate"
    dataset: Positional[Path]
    """The dataset's file."""
    learners: int = 100
    """Fresh learners per distribution."""
    episodes: int | None = None
    """Episodes per learner; by default 100, or all test images."""
    distribution: str = "card"
    """By comma: card (the first distribution on the card), all (the six of the PPMO paper's Table 1), lambda, ortho1,
    xavier, xavier1, random-width, random-depth, or pairs such as width=128:depth=3:initialiser=xavier."""
    task: str = ""
    """Insist that the dataset is of this task; of a merged dataset, the task to be played."""
    ensemble: int = 1
    """Clones per learner, which acts by the average of their action probabilities, or of their continuous actions."""
    seed: int = 0
    """Seed of the evaluation; never used in distillation."""
    greedy: bool = False
    """Most likely actions in place of sampled ones; answers to images always are."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Evaluates."""
        dataset = load(self.dataset)
        asked = self.distribution.split(",")
        scores = evaluate(
            dataset,
            distributions=[name for word in asked for name in (NAMED_DISTRIBUTIONS if word == "all" else [word])],
            learners=self.learners,
            episodes=self.episodes,
            seed=self.seed,
            greedy=self.greedy,
            task=self.task,
            ensemble=self.ensemble,
        )
        task = make_task(self.task).task_id if self.task else dataset.card.task
        result = {"task": task, "dataset": str(self.dataset)} | (
            {"ensemble": self.ensemble} if self.ensemble > 1 else {}
        )
        return result | {"distributions": {name: score.as_dict() for name, score in scores.items()}}

    def text(self, result: Json) -> str:
        """One line per distribution."""
        lines: list[str] = []
        for name, score in result["distributions"].items():
            what = "fresh learners" if self.ensemble == 1 else f"ensembles of {self.ensemble} fresh learners"
            lines = lines or [f"{result['task']}: {self.learners} {what} x {_episodes(result, score)} each"]
            low, high = score["ci95"]
            share = score["max_share"]
            perfect = "" if share is None else f", {share:.0%} of learners always reach the maximum"
            failed = f", {score['diverged']} learners diverged" if score["diverged"] else ""
            lines.append(f"{name:>13}: {_mean(result, score)}, 95% interval {low:.1f} to {high:.1f}{perfect}{failed}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Baseline(Command):
    """Scores what a dataset is compared with: plain PPO or neuroevolution through the same code, or random actions."""

    name: ClassVar[str] = "baseline"
    config: Annotated[DistillConfig, arg(name="")]
    method: Literal["ppo", "neuroevolution", "random"] = "ppo"
    """ppo, neuroevolution or random."""
    episodes: int = 1000
    """Episodes of the final evaluation."""
    out: Path | None = None
    """Folder of the run; by default nothing is kept."""
    budget: str = ""
    """When to stop the run: a number of steps over which rates are annealed (500steps), or a time (60s, 10m)."""
    resume: bool = False
    """Go on with the run in --out."""
    overwrite: bool = False
    """Replace the run in --out."""
    shared: Annotated[Processes, arg(name="")] = dataclasses.field(default_factory=Processes)
    """The processes that share the run."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    @classmethod
    def parse(cls, words: list[str]) -> Command:
        """Reads the task and the method first, for they give the other options their defaults."""
        join_processes(words)
        task = _first_word(words, "floppy baseline", "cartpole --method random")
        early = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
        early.add_argument("--method", default="ppo")
        evolves = parse_early(early, words[1:]).method == "neuroevolution"
        config = neuroevolution_baseline(task) if evolves else ppo_baseline(task)
        return parse_options(cls, words, "floppy baseline", default=cls(config))

    def run(self, typed: str) -> Json:
        """Runs the method and scores it by complete episodes."""
        check_number("episodes", self.episodes, least=1)  # said before a long run, not after it
        started = time.monotonic()
        config, time_limit = apply_budget(self.config, self.budget)
        task = make_task(config.task)
        # The encoder holds every layer, however many the learners have.
        config = dataclasses.replace(config, encoder_layers=parse_distributions(config.distribution)[0].layers)
        result: Json = {"task": task.task_id, "method": self.method}
        if self.method == "random":
            score = evaluate_random(task, episodes=self.episodes, seed=config.seed)
        else:
            run = distill_with_progress(
                config, self.out, time_limit=time_limit, command=typed, resume=self.resume, overwrite=self.overwrite
            )
            if self.out:
                _say_how_to_go_on(run)
            score = evaluate(run.dataset, distributions=["card"], learners=1, episodes=self.episodes, seed=config.seed)[
                "card"
            ]
            result |= {"outer_steps": run.outer_steps, "env_steps": run.env_steps, "finished": run.finished}
        return result | {"score": score.as_dict(), "seconds": time.monotonic() - started}

    def text(self, result: Json) -> str:
        """The score."""
        score = result["score"]
        return f"{result['task']}, {result['method']}: {_mean(result, score)} over {_episodes(result, score)}"


@dataclasses.dataclass(frozen=True)
class Import(Command):
    """Turns arrays from elsewhere, in an .npz file, into a floppy dataset.

    Arrays read: observations [k, *obs]; targets, actions or y_mean [k, a]; where present inner_lr or inner_rate [],
    y_logstd or log_std [a], obs_mean and obs_var [*obs]. The text meta of a published HaDES or PPMO run gives all
    defaults, and names an encoder's arrays.
    """

    name: ClassVar[str] = "import"
    file: Positional[Path]
    """The .npz file."""
    out: Path
    """The .safetensors file to write."""
    task: str = ""
    """Id of the task that the dataset is of; a published run names it itself."""
    cloning: Literal["", "GradientStep", "AdamSteps", "ImplicitStep"] = ""
    """How fresh policies learn from it; by default as a published run says, else by a GradientStep."""
    loss: str = ""
    """mse, cross-entropy or gaussian-nll, in place of the published run's or mse."""
    steps: int | None = None
    """Cloning steps, in place of the published run's or one."""
    rate: float | None = None
    """Rate of the cloning steps; by default the file's."""
    distribution: str = ""
    """The learners that the dataset is for; by default as a published run says, else lambda."""
    normaliser: Literal["", "none", "frozen", "per-evaluation"] = ""
    """Of the observations; by default as a published run says, else frozen if the file has statistics."""
    notes: str = ""
    """Where it comes from."""
    overwrite: bool = False
    """Replace the file of --out."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Reads, checks against the task, and writes."""
        dataset = import_npz(
            self.file,
            self.task,
            cloning=self.recipe(),
            rate=self.rate,
            distribution=self.distribution,
            normaliser=self.normaliser,
            notes=self.notes,
            command=typed,
        )
        save(dataset, self.out, overwrite=self.overwrite)
        return {"task": dataset.card.task, "dataset": str(self.out), "examples": dataset.examples}

    def recipe(self) -> Cloning:
        """The published run's cloning, or a gradient step, with what is asked for in its place."""
        base = read_published(self.file).get("cloning") or GradientStep()
        asked = {"loss": self.loss, "steps": self.steps}
        changes: Json = {name: value for name, value in asked.items() if value not in ("", None)}
        if self.cloning in ("", type(base).__name__):
            return dataclasses.replace(base, **changes)
        whole: Json = {"loss": "mse", "steps": 1} | changes
        return CLONING_KINDS[self.cloning](**whole)

    def text(self, result: Json) -> str:
        """What was written."""
        return f"{result['examples']} examples of {result['task']}\n{result['dataset']}"


@dataclasses.dataclass(frozen=True)
class Show(Command):
    """Shows a dataset's card and tensors."""

    name: ClassVar[str] = "show"
    dataset: Positional[Path]
    """The dataset's file."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Reads and checks the file."""
        return load(self.dataset).describe()

    def text(self, result: Json) -> str:
        """Tensors, then the card."""
        lines = [f"{self.dataset}: {result['examples']} examples, {result['floats']} floats"]
        lines += [f"  {name} {list(tensor['shape'])}" for name, tensor in result["tensors"].items()]
        lines += [f"  {key}: {json.dumps(value)}" for key, value in result["card"].items()]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Tasks(Command):
    """Lists the tasks."""

    name: ClassVar[str] = "tasks"
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Every known id with its short name."""
        short = {full: name for name, full in SHORT_NAMES.items()}
        return {"tasks": [{"task": task, "short_name": short.get(task)} for task in list_tasks()]}

    def text(self, result: Json) -> str:
        """One line per task."""
        lines = [f"{entry['task']:<34}{entry['short_name'] or ''}".rstrip() for entry in result["tasks"]]
        more = (
            "ndcartpole/N exists for every N >= 1, brax/NAME/BACKEND for the backends spring and generalized,\n"
            "gymnasium/ID for every registered environment with a time limit and suitable spaces,\n"
            "ale/GAME/sticky for a game with sticky actions, and images/FILE.npz for a file with images and labels;\n"
            "games need floppy[atari], digits floppy[images], the other images their files (--data)."
        )
        return "\n".join([*lines, more])


@dataclasses.dataclass(frozen=True)
class Merge(Command):
    """Merges datasets of different tasks into one, from which a single policy learns them all."""

    name: ClassVar[str] = "merge"
    datasets: Positional[tuple[Path, ...]]
    """Their files, two or more, distilled for the same learners and with the same cloning."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """The .safetensors file to write."""
    notes: str = ""
    """Anything for the card."""
    overwrite: bool = False
    """Replace the file of --out."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Reads them all, merges and writes."""
        merged = merge([load(path) for path in self.datasets], notes=self.notes, command=typed)
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


AnyStudy = TypeVar("AnyStudy", bound=Study)


@dataclasses.dataclass(frozen=True)
class StudyRun(Command, Generic[AnyStudy]):
    """Any study, with what it shares with the others."""

    study: Annotated[AnyStudy, arg(name="")]
    out: Path | None = None
    """Folder of the study: its table, summary and figure; by default runs/STUDY."""
    resume: bool = False
    """Go on with the study in --out; what was measured stays."""
    overwrite: bool = False
    """Replace the study in --out."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Measures, sums up, draws."""
        folder = self.out or Path("runs") / self.study.name
        run_study(
            self.study,
            folder,
            resume=self.resume,
            overwrite=self.overwrite,
            command=typed,
            progress=lambda done, count, what: print(f"{done}/{count}: {what}", file=sys.stderr, flush=True),
        )
        return {"study": self.study.name, "folder": str(folder)} | _summary_of(folder)

    def text(self, result: Json) -> str:
        """The summary, and where the figure lies."""
        return _study_text(result)


class StudyCommand:
    """The command of a study: its options are the study's fields."""

    def __init__(self, kind: type[Study]) -> None:
        self.kind, self.__doc__ = kind, kind.__doc__

    def parse(self, words: list[str]) -> Command:
        """As for any other command."""
        kind: Any = StudyRun[self.kind]  # type: ignore[name-defined]
        command: Command = parse_options(kind, words, f"floppy {self.kind.name}", description=self.kind.__doc__)
        return command


@dataclasses.dataclass(frozen=True)
class Redraw(Command):
    """Writes a study's summary and figure anew from its table."""

    name: ClassVar[str] = "redraw"
    folder: Positional[Path]
    """The study's folder, which holds study.json and rows.csv."""
    sources: Annotated[TaskSources, arg(name="")] = dataclasses.field(default_factory=TaskSources)
    """Where tasks come from."""
    json: bool = False
    """Print exactly one JSON object."""

    def run(self, typed: str) -> Json:
        """Sums up and draws."""
        draw_study(self.folder)
        return {"study": read_study(self.folder).name, "folder": str(self.folder)} | _summary_of(self.folder)

    def text(self, result: Json) -> str:
        """As for the study itself."""
        return _study_text(result)


def _summary_of(folder: Path) -> Json:
    return {"figure": str(folder / FIGURE_NAME), "summary": json.loads((folder / SUMMARY_NAME).read_bytes())}


def _study_text(result: Json) -> str:
    return f"{json.dumps(result['summary'], indent=2)}\n{result['figure']}"


COMMANDS: dict[str, type[Command] | type[Reproduce] | StudyCommand] = {
    command.name: command for command in (Distill, Rollback, Train, Evaluate, Baseline, Import, Show, Tasks, Merge)
}
COMMANDS |= {name: StudyCommand(kind) for name, kind in STUDIES.items()} | {
    Redraw.name: Redraw,
    Reproduce.name: Reproduce,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(importlib.metadata.version("floppy"))
        return 0
    try:
        if words[0] not in COMMANDS:
            raise FloppyError(f"There is no command {words[0]!r}: choose from {', '.join(COMMANDS)}.")
        enable_compilation_cache()
        with task_sources(words[1:]):
            command = COMMANDS[words[0]].parse(words[1:])
            result = command.run(shlex.join(["floppy", *words]))
            if is_first_process():
                print(json.dumps(result) if command.json else command.text(result), flush=True)
    except SystemExit as stop:  # a command's --help
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of stdout, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except FloppyError as error:
        print(f"floppy: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:  # a disk that is full, a name that is too long: what the library did not foresee
        print(f"floppy: Reading or writing failed ({' '.join(str(error).split())}): check the path.", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        again = "; the same command with --resume goes on" if words[0] in STUDIES else ""
        print(f"floppy: interrupted{again}", file=sys.stderr)
        return 130
    return 0


def parse_options(command: type[Command], words: list[str], program: str, **options: Any) -> Any:
    """Tyro's parser, with its complaint folded into one sentence.

    Raises:
      FloppyError: for what tyro refuses.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command, prog=program, args=words, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise FloppyError(f"{_sentence(complaint.getvalue())}: `{program} --help` lists the options.") from None


def parse_early(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The few options that decide about the defaults of the others; what is wrong is left for tyro to say."""
    try:
        return parser.parse_known_args(words)[0]
    except argparse.ArgumentError as error:
        raise FloppyError(f"{error}: give a value.") from None


def default_config(words: list[str], program: str) -> DistillConfig:
    """What the task, which is the first of the words, and the recipe give the other options as their defaults."""
    task = _first_word(words, program, "cartpole")
    early = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for option in ("outer", "recipe", "cloning", "strategy", "examples"):
        early.add_argument(f"--{option}", default="")
    known = parse_early(early, words[1:])
    # Anything but a plain positive number is left for tyro to refuse.
    examples = int(known.examples) if re.fullmatch("[1-9][0-9]{0,8}", known.examples) else None
    if known.outer and known.outer not in OUTER_LOOPS:
        raise FloppyError(f"Outer loop {shown(known.outer)} was asked for: choose from {', '.join(OUTER_LOOPS)}.")
    name = known.recipe or known.outer
    default = recipe(task, name, examples=examples, cloning=known.cloning or None, strategy=known.strategy or None)
    if known.outer not in ("", default.outer.name):
        raise FloppyError(
            f"--outer {known.outer} was asked for with recipe {name}, which is for --outer {default.outer.name}: "
            "give one of the two."
        )
    return default


def run_name(config: DistillConfig, study: str = "") -> str:
    """The default folder of a run or a study."""
    task = make_task(config.task).task_id.replace("/", "-")
    return f"{task}-{study}k{config.examples}-seed{config.seed}"


def parse_level(word: str) -> int:
    """A number of encoder layers."""
    if not re.fullmatch("[0-9]{1,3}", word.strip()):
        raise FloppyError(f"--levels holds {shown(word)}: give numbers of encoder layers by comma, such as 2,1,0.")
    return int(word)


@contextlib.contextmanager
def task_sources(words: list[str]) -> Iterator[None]:
    """Imports what `--import` names and looks for files where `--data` says, before anything makes a task.

    Modules are searched in the current folder too.
    """
    early = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    early.add_argument("--import", default="", dest="modules")
    early.add_argument("--data", default="")
    given = parse_early(early, words)
    here = os.getcwd()
    sys.path.append(here)  # for `gymnasium/my_module:MyEnvironment-v0` as well
    before = os.environ.get(DATA_VARIABLE)
    if given.data:
        os.environ[DATA_VARIABLE] = given.data
    try:
        for name in given.modules.split(",") if given.modules else ():
            import_module(name.strip())
        yield
    finally:
        sys.path.remove(here)
        os.environ.pop(DATA_VARIABLE, None)
        if before is not None:
            os.environ[DATA_VARIABLE] = before


def join_processes(words: list[str]) -> None:
    """Connects the processes that share a run, before anything makes JAX look for its devices."""
    early = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for field in dataclasses.fields(Processes):
        early.add_argument(f"--{field.name}", default=field.default, type=type(field.default))
    shared = Processes(**vars(parse_early(early, words)))
    shared.join()
    if shared.coordinator:
        # Gloo writes to the file descriptor of stdout, which is for the result alone.
        sys.stdout = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)


def distill_with_progress(
    config: DistillConfig, out: Path | None, *, time_limit: float | None, command: str, resume: bool, overwrite: bool
) -> DistillResult:
    """`distill` with a bar on stderr, or with plain lines where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.completed}/{task.total} steps"), BarColumn(), TextColumn("{task.fields[figures]}"))
    begun = started = time.monotonic()
    first = None
    episodes = _episodes({"task": config.task}, {"episodes": config.score_episodes})
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task("", total=config.outer_steps, figures="compiling")

        def progress(done: int, total: int, figures: dict[str, float]) -> None:
            nonlocal started, first
            text = f"score {figures['score']:.1f}, best {figures['best']:.1f}"
            if first is None:  # the first call holds the compilation
                started, first = time.monotonic(), done
            else:
                text += f", {(done - first) / max(time.monotonic() - started, 1e-9):.1f} steps/s"
            bar.update(row, completed=done, figures=text)
            if not console.is_terminal:
                print(f"step {done}/{total}: {text}", file=sys.stderr, flush=True)
            if done == total or (time_limit is not None and time.monotonic() - begun > time_limit):
                print(f"scoring {config.score_learners} fresh learners x {episodes}", file=sys.stderr, flush=True)

        return distill(
            config,
            out,
            resume=resume,
            overwrite=overwrite,
            time_limit=time_limit,
            command=command,
            progress=progress,
        )


def _distill_level(config: DistillConfig, out: Path | None, **options: Any) -> DistillResult:
    print(f"encoder layers {config.encoder_layers}", file=sys.stderr, flush=True)
    return distill_with_progress(config, out, **options)


def _say_how_to_go_on(result: DistillResult) -> None:
    if not result.finished:
        again = f"the same command with --resume goes on from step {result.outer_steps}"
        print(f"floppy: stopped early; {again}", file=sys.stderr)


def _first_word(words: list[str], program: str, example: str) -> str:
    if words and words[0] in ("-h", "--help"):
        return SHORT_NAMES["cartpole"]  # help without a task shows this one's defaults
    if not words or words[0].startswith("-"):
        raise FloppyError(f"{program} got no task: name it first, as in `{program} {example}`.")
    return words[0]


def _sentence(complaint: str) -> str:
    """Tyro's box, drawn in Unicode or ASCII: what stands between title and next rule, and the option offered below."""
    lines = [line.strip("╭╮╰╯│─ ") for line in complaint.splitlines()]
    body = itertools.dropwhile(lambda line: not line.strip("-"), lines[1:])
    message = " ".join(itertools.takewhile(lambda line: line.strip("-"), body)).rstrip(".: ")
    message = message.replace("invalid literal for int() with base 10: ", "a whole number was expected, got ")
    message = message.replace("could not convert string to float: ", "a number was expected, got ")
    offered = re.search(r"Perhaps you meant:[^\w-]*(--\S+)", complaint)
    return message + (f", did you mean {offered[1]}" if offered else "")


def _has_images(result: Json) -> bool:
    return isinstance(make_task(result["task"]), SupervisedTask)


def _mean(result: Json, score: Json) -> str:
    what = "accuracy in percent" if _has_images(result) else "mean return"
    return f"{what} {score['mean']:.1f} (sd {score['sd']:.1f})"


def _episodes(result: Json, score: Json) -> str:
    return f"{score['episodes']} {'images' if _has_images(result) else 'episodes'}"


def _overview() -> str:
    lines = ["usage: floppy COMMAND [options]", ""]
    lines += [f"  {name:<14}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "`floppy COMMAND --help` lists a command's options."])
