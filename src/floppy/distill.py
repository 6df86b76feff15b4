"""A distillation run: outer steps, progress, checkpoints, the best dataset, resuming."""

import dataclasses
import importlib.metadata
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from floppy.arena import ON_DEVICE, Arena, open_arena
from floppy.card import Card
from floppy.checkpoint import load_checkpoint, save_checkpoint
from floppy.cloning import Cloning, Distilled, GradientStep, as_entry, check_loss
from floppy.dataset import TEMPORARY_FILES, DistilledDataset, save, write_atomically
from floppy.errors import MOST, DivergedError, FloppyError, check_number, check_seed, one_line, shown
from floppy.evaluate import clone_and_play, finite_returns, score_returns
from floppy.keys import named_key
from floppy.learners import parse_distributions
from floppy.normalise import RunningStatistics
from floppy.outer import PPMO, HaDES, Info, OuterLoop, Problem, Supervised
from floppy.outer.base import INITIAL_EXAMPLES, LABELLED_EXAMPLES, TARGETS
from floppy.parallel import first_process_says, is_first_process, replicate
from floppy.tasks.base import Continuous, FaultyEnvironmentError, SupervisedTask, Task
from floppy.tasks.registry import full_task_id, make_task
from floppy.teacher import read_teacher

DATASET_NAME = "dataset.safetensors"
CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
CHECKPOINT_NAME = "checkpoints/latest.safetensors"


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Everything that determines a distilled dataset: the same configuration gives the same dataset, bit for bit.

    Raises:
      FloppyError: when built with a value that is not allowed.
    """

    task: tyro.conf.Positional[str]
    """Task id, such as cartpole, ndcartpole/3 or gymnax/Acrobot-v1."""
    examples: int = 2
    """How many synthetic examples, k."""
    seed: int = 0
    """Seed of everything random."""
    outer_steps: int = 400
    """Length of the run, over which rates are annealed."""
    distribution: str = "lambda"
    """Learner distributions that the dataset is for, by comma: lambda, ortho1, xavier, xavier1, random-width,
    random-depth, or pairs such as width=32..256:depth=2:initialiser=xavier."""
    initial_rate: float = 1.0
    """Where the inner rate starts."""
    encoder_layers: int = 0
    """Leading layers trained in the outer loop and stored in the file (encoder rollback); all of them: nothing is
    cloned, which is plain PPO, or neuroevolution."""
    cloning: tyro.conf.AvoidSubcommands[Cloning] = dataclasses.field(default_factory=GradientStep)
    """How a fresh policy learns from the dataset."""
    targets: Literal["learned", "one-hot"] = "learned"
    """learned, or one-hot: fixed class labels, spread evenly over the actions."""
    initial_examples: Literal["normal", "zeros", "random-policy", "class-means", "samples"] = "normal"
    """Where the examples start: normal or zeros, or observations that random actions meet, with targets of zero; of
    labelled images also class-means, or samples."""
    learned_rate: bool = True
    """Whether the inner rate is improved too."""
    outer: Annotated[tyro.conf.AvoidSubcommands[PPMO | HaDES | Supervised], tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=PPMO
    )
    """How the dataset is improved."""
    evaluate_every: int = 25
    """Outer steps between the evaluations that choose the best dataset; also those of one compiled call."""
    selection_learners: int = 64
    """Fresh learners per distribution in those evaluations."""
    selection_episodes: int = 2
    """Episodes of each of these learners."""
    score_learners: int = 100
    """Fresh learners per distribution in the last evaluation, which gives the card its score."""
    score_episodes: int = 10
    """Episodes of each of these learners."""

    def __post_init__(self) -> None:
        """Refuses nonsense, and gives the task its full id."""
        object.__setattr__(self, "task", full_task_id(self.task))
        evaluations = ("selection_learners", "selection_episodes", "score_learners", "score_episodes")
        for name in ("outer_steps", "evaluate_every", *evaluations):
            check_number(name, getattr(self, name), least=1, most=MOST)
        check_seed(self.seed)
        check_number("encoder_layers", self.encoder_layers, least=0)
        # With every layer in the encoder there is nothing to clone, and no example to store.
        check_number("examples", self.examples, least=0, most=MOST)
        if self.examples == 0 and self.encoder_layers == 0:
            raise FloppyError(
                "examples = 0 was asked for: give at least 1, or, for a plain policy, as many encoder_layers as the "
                "network has."
            )
        check_number("initial_rate", self.initial_rate, above=0)
        if not isinstance(self.outer, PPMO | HaDES | Supervised):
            raise FloppyError(
                f"outer = {shown(self.outer)} was asked for: give a PPMO, a HaDES or a Supervised, as recipe(task, "
                "'hades') has one."
            )
        for name, allowed in (("targets", TARGETS), ("initial_examples", INITIAL_EXAMPLES)):
            if (got := getattr(self, name)) not in allowed:
                raise FloppyError(f"{name} = {got} was asked for: choose from {', '.join(allowed)}.")

    def problem(self) -> Problem:
        """The bi-level problem of this configuration, checked as a whole."""
        task = make_task(self.task)
        _versions(task)  # in time, for the card will name them
        check_loss(self.cloning.loss, task.actions)
        learners = parse_distributions(self.distribution)
        if self.encoder_layers:
            self._check_encoder(learners[0].layers, fixed=len(learners) == 1 and learners[0].is_fixed)
        if self.targets == "one-hot" and isinstance(task.actions, Continuous):
            raise FloppyError(f"One-hot targets were asked for, {task.task_id} has continuous actions: learn them.")
        if self.initial_examples in LABELLED_EXAMPLES and not isinstance(task, SupervisedTask):
            raise FloppyError(
                f"initial_examples = {self.initial_examples} was asked for, {task.task_id} has no labelled examples: "
                "choose normal, zeros or random-policy."
            )
        teacher = self.outer.teacher if isinstance(self.outer, PPMO) else ""
        return Problem(
            task=task,
            learners=learners,
            cloning=self.cloning,
            examples=self.examples,
            initial_rate=self.initial_rate,
            encoder_layers=self.encoder_layers,
            outer_steps=self.outer_steps,
            targets=self.targets,
            initial_examples=self.initial_examples,
            learned_rate=self.learned_rate,
            teacher=read_teacher(teacher, task) if teacher else None,
        )

    def _check_encoder(self, layers: int, *, fixed: bool) -> None:
        if not fixed:
            raise FloppyError(
                f"An encoder was asked for with learners of random architecture ({self.distribution}): "
                "give one distribution of fixed width and depth."
            )
        if self.encoder_layers > layers:
            raise FloppyError(f"encoder_layers = {self.encoder_layers} was asked for: the network has {layers} layers.")
        if (self.examples == 0) != (self.encoder_layers == layers):
            raise FloppyError(
                f"examples = {self.examples} was asked for with encoder_layers = {self.encoder_layers} of {layers}: "
                "give 0 examples if and only if the encoder holds every layer."
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with the `kind` of cloning and outer loop named."""
        return dataclasses.asdict(self) | {"cloning": as_entry(self.cloning), "outer": as_entry(self.outer)}


class RunState(NamedTuple):
    """What a checkpoint holds."""

    outer: Any
    """The outer loop's own state."""
    step: jax.Array
    """`[]` int: outer steps done."""
    best: Distilled
    best_statistics: RunningStatistics | None
    best_score: jax.Array
    """`[]`: selection score of `best`; -inf before the first evaluation."""
    env_steps: np.ndarray
    """`[]` int64: environment steps taken; a NumPy array, for JAX has no such integers by default."""


@dataclasses.dataclass(frozen=True)
class DistillResult:
    """What a run gives back."""

    dataset: DistilledDataset
    outer_steps: int
    """Done in total, earlier parts of a resumed run included."""
    env_steps: int
    """Environment steps used by these outer steps; evaluations are not counted."""
    seconds: float
    """Wall-clock time of this call, compilation included."""
    finished: bool
    """False when a time limit or Ctrl-C ended the run early."""
    interrupted: bool
    """Whether it was Ctrl-C."""


Figures = dict[str, np.ndarray]
"""What outer steps report, by name, `[steps]`."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after each compiled call with steps done, steps in all, and the latest figures."""


def distill(
    config: DistillConfig,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    time_limit: float | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> DistillResult:
    """Distils a task into a dataset.

    The best dataset is chosen by evaluations of fresh learners on seeds of their own, and scored once more at the end
    on fresh seeds: the score on its card is not the maximum of noisy ones.

    Args:
      config: what to distil and how.
      out: folder of the run (`config.json`, `metrics.jsonl`, `checkpoints/`, `dataset.safetensors`); None keeps
        everything in memory.
      resume: go on from the checkpoint in `out`; the dataset is the same as that of an undisturbed run, but for a host
        task: its environments cannot be saved, and start new episodes.
      overwrite: replace an earlier run in `out`.
      time_limit: seconds after which the run ends at the next evaluation, for a host task at the next outer step.
      command: written on the card.
      progress: called after each compiled call.

    Returns:
      The best dataset, scored, and what it took.

    Raises:
      FloppyError: for a configuration that is not allowed, an `out` that is taken, a checkpoint that does not fit, a
        run that diverged, or an environment that failed (a `FaultyEnvironmentError`), in which case
        `out` holds what was reached.
    """
    started = time.monotonic()
    if not isinstance(config, DistillConfig):
        raise FloppyError(f"A configuration was expected, got {shown(config)}: give what recipe(task) returns.")
    problem = config.problem()
    folder = None if out is None else Path(out)
    check_intention(resume=resume, overwrite=overwrite)
    with open_arena(problem.task) as arena:
        run = _Run(config, problem, config.outer, command, arena)
        state = _prepare(run, folder, resume=resume, overwrite=overwrite)
        with _interruptible() as interrupted:

            def is_to_stop() -> bool:
                late = time_limit is not None and time.monotonic() - started > time_limit
                return first_process_says(late or interrupted.is_set())

            while int(state.step) < config.outer_steps:
                state = _advance(run, folder, state, is_to_stop, progress)
                if is_to_stop():
                    break
        dataset = run.dataset(state, score=True)
    if folder is not None and is_first_process():
        save(dataset, folder / DATASET_NAME, overwrite=True)
    return DistillResult(
        dataset,
        outer_steps=int(state.step),
        env_steps=int(state.env_steps),
        seconds=time.monotonic() - started,
        finished=int(state.step) >= config.outer_steps,
        interrupted=interrupted.is_set(),
    )


class _Run:
    """The compiled parts of a run, and the command that made it; holds no state but live environments."""

    def __init__(
        self, config: DistillConfig, problem: Problem, outer: OuterLoop, command: str, arena: Arena = ON_DEVICE
    ) -> None:
        self.config, self.problem, self.outer, self.command, self.arena = config, problem, outer, command, arena
        # An argument of the compiled functions, not a constant within: another seed compiles nothing anew.
        self.key = replicate(jax.random.key(config.seed))
        self.advance = jax.jit(self._advance)

    def init(self) -> RunState:
        """The state before the first step."""
        key = named_key(self.key, "init")
        if self.arena.is_pure:
            outer = jax.jit(self.outer.init, static_argnums=0)(self.problem, key)
        else:
            outer = self.outer.init(self.problem, key, self.arena)
        outer = replicate(outer)
        return RunState(
            outer,
            jnp.zeros((), jnp.int32),
            self.outer.distilled(outer),
            self.outer.statistics(outer),
            jnp.asarray(-jnp.inf),
            np.zeros((), np.int64),
        )

    def _advance(self, state: Any, steps: jax.Array, key: jax.Array) -> tuple[Any, Info]:
        step_key = named_key(key, "outer step")

        def one(state: Any, step: jax.Array) -> tuple[Any, Info]:
            return self.outer.step(self.problem, state, jax.random.fold_in(step_key, step))

        return jax.lax.scan(one, state, steps)

    def steps(
        self, state: Any, steps: Sequence[int], is_to_stop: Callable[[], bool]
    ) -> tuple[Any, Figures, FaultyEnvironmentError | None]:
        """The outer loop's state after steps, their figures, and what went wrong in a step that is not among them.

        Those of a host task, which may take minutes, stop early when asked to.
        """
        if self.arena.is_pure:
            state, info = self.advance(state, np.asarray(steps), self.key)
            return state, {name: np.asarray(values) for name, values in info.items()}, None
        step_key, infos, fault = named_key(self.key, "outer step"), [], None
        try:
            for step in steps:
                state, info = self.outer.step(self.problem, state, jax.random.fold_in(step_key, step), self.arena)
                infos.append(info)
                if is_to_stop():
                    break
        except FaultyEnvironmentError as error:
            fault = error
        return state, {name: np.stack([info[name] for info in infos]) for name in (infos or [{}])[0]}, fault

    def returns(
        self,
        task: Task,
        distilled: Distilled,
        statistics: RunningStatistics | None,
        key: jax.Array,
        learners: int,
        episodes: int,
    ) -> np.ndarray:
        """Returns `[distributions · learners, episodes]` of fresh learners."""
        groups = [
            clone_and_play(
                task,
                network,
                self.config.cloning,
                distilled,
                named_key(key, f"group {index}"),
                learners=learners,
                episodes=episodes,
                statistics=statistics,
                arena=self.arena,
            )
            for index, network in enumerate(self.problem.networks)
        ]
        return np.concatenate([np.asarray(group) for group in groups])

    def select(self, state: RunState) -> tuple[RunState, float]:
        """Evaluates the dataset as it stands, on seeds of its own, and keeps it if it is the best so far."""
        distilled, statistics = self.outer.distilled(state.outer), self.outer.statistics(state.outer)
        key = jax.random.fold_in(named_key(self.key, "select"), int(state.step))
        config, task = self.config, self.problem.task
        if isinstance(task, SupervisedTask):  # whoever chooses by the test images has seen them
            task = task.with_split("held-out")
        returns = self.returns(task, distilled, statistics, key, config.selection_learners, config.selection_episodes)
        # The scores of the few that did not diverge say nothing of a dataset.
        usable = np.isfinite(returns).all(axis=1).mean() >= 0.5
        score = float(finite_returns(returns).mean(dtype=np.float64)) if usable else -float("inf")
        # On a tie the later dataset wins: it has seen more.
        if score >= float(state.best_score):
            state = state._replace(best=distilled, best_statistics=statistics, best_score=jnp.asarray(score))
        return state, score

    def dataset(self, state: RunState, *, score: bool) -> DistilledDataset:
        """The best dataset as a file's content; with `score`, evaluated once more on fresh seeds."""
        entry = None
        if score:
            key = named_key(self.key, "score")
            config, task = self.config, self.problem.task
            returns = self.returns(
                task, state.best, state.best_statistics, key, config.score_learners, config.score_episodes
            )
            entry = score_returns(returns, task.max_return, config.seed).as_dict()
        return to_dataset(self.config, self.problem, state.best, state.best_statistics, entry, self.command)


def to_dataset(
    config: DistillConfig,
    problem: Problem,
    distilled: Distilled,
    statistics: RunningStatistics | None,
    score: dict[str, Any] | None,
    command: str,
) -> DistilledDataset:
    """A run's parameters with their card."""
    layers = problem.learners[0].layers
    card = Card(
        task=problem.task.task_id,
        actions=problem.task.actions.as_dict(),
        cloning=as_entry(config.cloning),
        learners=[dataclasses.asdict(distribution) for distribution in problem.learners],
        algorithm={"name": config.outer.name, "config": config.as_dict()},
        normaliser="none" if statistics is None else "frozen",
        command=command,
        versions=_versions(problem.task),
        score=score,
        seed=config.seed,
        encoder={"layers": config.encoder_layers, "of": layers} if config.encoder_layers else None,
        parents=_parents(problem),
    )
    return DistilledDataset(
        card,
        np.asarray(distilled.observations),
        np.asarray(distilled.targets),
        log_std=np.asarray(distilled.log_std) if problem.reads_log_std and distilled.log_std.size else None,
        inner_rate=np.asarray(distilled.inner_rate),
        obs_mean=None if statistics is None else np.asarray(statistics.mean),
        obs_var=None if statistics is None else np.asarray(statistics.var),
        encoder={
            f"{index}/{name}": np.asarray(array)
            for index, layer in enumerate(distilled.encoder)
            for name, array in layer.items()
        },
    )


def _versions(task: Task) -> dict[str, str]:
    """Of the packages that a dataset depends on."""
    packages = sorted({"floppy", "jax", "optax", task.package})
    try:
        return {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise FloppyError(
            f"{task.task_id} has package {shown(task.package)}, which is not installed: give an installed one's name."
        ) from error


def _parents(problem: Problem) -> list[str]:
    return [problem.teacher.origin] if problem.teacher else []


def check_intention(*, resume: bool, overwrite: bool) -> None:
    """Refuses to go on with a run and to replace it."""
    if resume and overwrite:
        raise FloppyError("A run can go on or be replaced: give one of --resume and --overwrite.")


def files_of_run(folder: Path) -> list[str]:
    """What a folder holds of an earlier run."""
    return [name for name in (CONFIG_NAME, DATASET_NAME, CHECKPOINT_NAME, METRICS_NAME) if (folder / name).exists()]


def already_taken(folder: Path) -> FloppyError:
    """The complaint about an earlier run in the way of a new one."""
    return FloppyError(f"{folder} already holds a run: give --overwrite, --resume, or another folder.")


def _prepare(run: _Run, folder: Path | None, *, resume: bool, overwrite: bool) -> RunState:
    """The state to start from; writes the configuration of a new run."""
    state = run.init()  # refuses what no run can be made of, before anything is written
    if folder is None:
        if resume:
            raise FloppyError("A run kept in memory cannot be resumed: give the folder of the run to go on with.")
        return state
    if resume:
        return _resume(run, folder, state)
    if first_process_says(folder.is_file()):
        raise FloppyError(f"{folder} is a file: give a folder.")
    taken = files_of_run(folder)
    # Decided by the process that writes, for all: the others may see another disk, and would wait for it for ever.
    if first_process_says(bool(taken) and not overwrite):
        raise already_taken(folder)
    blocked = [str(folder / name) for name in taken if (folder / name).is_dir()]
    if first_process_says(bool(blocked)):
        raise FloppyError(f"{' '.join(blocked) or folder} is a folder where a run has a file: give another folder.")
    if not is_first_process():
        return state
    for name in taken:
        (folder / name).unlink()
    entry = {"command": run.command, "parents": _parents(run.problem)} | run.config.as_dict()
    write_atomically(folder / CONFIG_NAME, (json.dumps(entry, indent=2) + "\n").encode())
    return state


def _resume(run: _Run, folder: Path, fresh: RunState) -> RunState:
    """The state of the checkpoint in `folder`; `fresh` where the run ended before its first checkpoint."""
    run.command = _check_same_run(folder, run.config, _parents(run.problem))
    has_checkpoint = (folder / CHECKPOINT_NAME).exists()
    state = load_checkpoint(fresh, folder / CHECKPOINT_NAME) if has_checkpoint else fresh
    if is_first_process():
        for place in (folder, (folder / CHECKPOINT_NAME).parent):
            for leftover in place.glob(TEMPORARY_FILES):
                leftover.unlink()  # of a write that was killed
        _truncate_metrics(folder / METRICS_NAME, int(state.step))
    outer = state.outer if run.arena.is_pure else run.outer.restarted(state.outer)
    return state._replace(outer=replicate(outer))


def _check_same_run(folder: Path, config: DistillConfig, parents: list[str]) -> str:
    """Refuses to resume another run; gives the command that started this one, for the card."""
    try:
        saved = dict(json.loads((folder / CONFIG_NAME).read_bytes()))
    except (OSError, TypeError, ValueError) as error:
        raise FloppyError(f"{folder} holds no run to resume ({one_line(error)}): run without --resume.") from error
    command = str(saved.pop("command", ""))
    if saved.pop("parents", []) != parents:
        raise FloppyError(f"{folder} holds a run with another teacher's file: put that file back, or start a new run.")
    # An option that the run knew nothing of, for it is older, was as it is by default.
    by_default: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(config) if field.default is not dataclasses.MISSING
    }
    by_default |= {"cloning": as_entry(type(config.cloning)()), "outer": as_entry(type(config.outer)())}
    differing = _differing(saved, json.loads(json.dumps(config.as_dict())), by_default)
    if differing:
        raise FloppyError(
            f"{folder} holds a run that differs in {', '.join(differing)}: give these options as they are there."
        )
    return command


def _differing(saved: dict[str, Any], wanted: dict[str, Any], by_default: dict[str, Any]) -> list[str]:
    """Options in which two configurations differ, with their values; `by_default` stands for what `saved` lacks."""
    found = []
    for name in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(name, by_default.get(name)), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old.get("kind") == new.get("kind"):
            prefix = "" if name == "outer" else f"{name}."
            found += [prefix + each for each in _differing(old, new, by_default[name])]
        elif old != new:
            found.append(f"{name} ({_brief(old)} there, {_brief(new)} here)")
    return found


def _brief(value: Any) -> str:
    """A value of a configuration, of a part of it only the kind."""
    return str(value["kind"]) if isinstance(value, dict) and "kind" in value else shown(value)


def _advance(
    run: _Run, folder: Path | None, state: RunState, is_to_stop: Callable[[], bool], progress: Progress | None
) -> RunState:
    """Outer steps till the next evaluation, in one compiled call where that can be; selection, log and checkpoint."""
    first, every = int(state.step), run.config.evaluate_every
    steps = range(first, min((first // every + 1) * every, run.config.outer_steps))
    outer, figures, fault = run.steps(state.outer, steps, is_to_stop)
    _check_finite(figures, first, folder)
    env_steps, done = figures.get("env_steps", np.zeros(0)), first + len(next(iter(figures.values()), ()))
    previous_best = float(state.best_score)
    state = state._replace(
        outer=outer,
        step=jnp.asarray(done, jnp.int32),
        env_steps=state.env_steps + env_steps.astype(np.int64).sum(),
    )
    try:
        if fault is not None:
            raise fault
        state, score = run.select(state)
    except FaultyEnvironmentError as fault:
        raise _keep_what_was_reached(run, folder, state, figures, first, fault) from fault
    if folder is not None and is_first_process():
        if score >= previous_best:
            save(run.dataset(state, score=False), folder / DATASET_NAME, overwrite=True)
        _append_metrics(folder / METRICS_NAME, figures, first, score)
        save_checkpoint(state, folder / CHECKPOINT_NAME)
    if progress is not None:
        latest = {name: float(values[-1]) for name, values in figures.items()}
        progress(int(state.step), run.config.outer_steps, latest | {"score": score, "best": float(state.best_score)})
    return state


def _keep_what_was_reached(
    run: _Run, folder: Path | None, state: RunState, figures: Figures, first: int, fault: FaultyEnvironmentError
) -> FaultyEnvironmentError:
    """Saves a run that an environment has ended; gives the fault with what was saved."""
    if folder is None:
        return fault
    if state.best_score == -jnp.inf:  # none was evaluated: the latest is the best known
        state = state._replace(best=run.outer.distilled(state.outer), best_statistics=run.outer.statistics(state.outer))
    if not (folder / DATASET_NAME).exists():
        save(run.dataset(state, score=False), folder / DATASET_NAME)
    _append_metrics(folder / METRICS_NAME, figures, first)
    save_checkpoint(state, folder / CHECKPOINT_NAME)
    which = "the latest dataset, never evaluated," if state.best_score == -jnp.inf else "the best dataset so far"
    return FaultyEnvironmentError(
        f"{str(fault).removesuffix('.')}; the run stopped after outer step {int(state.step)}, from where --resume "
        f"goes on, and {which} is {folder / DATASET_NAME}."
    )


def _check_finite(figures: Figures, first: int, folder: Path | None) -> None:
    for name, values in figures.items():
        if not np.all(np.isfinite(values)):
            step = first + int(np.argmin(np.isfinite(values))) + 1
            best = None if folder is None else folder / DATASET_NAME
            kept = f" (the best dataset so far is {best})" if best and best.exists() else ""
            raise DivergedError(f"The run diverged: {name} is not finite at outer step {step}{kept}: lower the rate.")


def _append_metrics(path: Path, figures: Figures, first: int, score: float | None = None) -> None:
    count = len(next(iter(figures.values()), ()))
    lines: list[dict[str, Any]] = [
        {"step": first + row + 1} | {name: float(values[row]) for name, values in figures.items()}
        for row in range(count)
    ]
    if score is not None:
        lines[-1]["selection_score"] = score if np.isfinite(score) else None  # JSON has no infinity
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def _truncate_metrics(path: Path, step: int) -> None:
    """Drops what was logged after the checkpoint, the last line of a killed run included."""
    try:
        kept = path.read_text().splitlines(keepends=True)[:step] if path.exists() else []
    except ValueError as error:
        raise FloppyError(f"{path} is no log of a run ({one_line(error)}): run without --resume.") from error
    write_atomically(path, "".join(kept).encode())


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turns Ctrl-C into an event, so that a run ends between two compiled calls; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(*_: object) -> None:
        event.set()
        print(
            "stopping after the steps under way, then scoring what was reached; Ctrl-C again stops at once",
            file=sys.stderr,
            flush=True,
        )
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


__all__ = ["DistillConfig", "DistillResult", "distill", "to_dataset"]
