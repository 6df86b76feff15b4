"""A distillation run: outer steps, selection of the best dataset, checkpoints, the final score."""

import contextlib
import dataclasses
import functools
import math
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.cloning.base import Distilled
from floppy.compilation import FOR_FEW_CALLS, compiled
from floppy.dataset.file import DistilledDataset, load, save
from floppy.errors import OVERWRITE, DivergedError, FloppyError, shown
from floppy.evaluation.evaluate import Evaluation
from floppy.evaluation.score import CLONES_DIVERGED, POLICIES_DIVERGED, finite_returns, score_returns
from floppy.files import as_path
from floppy.keys import named_key
from floppy.outer.base import Info, OuterLoop, Problem, check_info
from floppy.outer.teacher import before, parents_of
from floppy.parallel import first_process_says, is_first_process, replicate
from floppy.play import Arena, open_arena
from floppy.play.device import ON_DEVICE
from floppy.play.normalise import RunningStatistics
from floppy.run.checkpoint import DamagedCheckpointError, load_checkpoint, save_checkpoint
from floppy.run.config import DistillConfig
from floppy.run.folder import (
    CHECKPOINT_NAME,
    DATASET_NAME,
    METRICS_NAME,
    PREVIOUS_NAME,
    About,
    Figures,
    add_versions,
    append_metrics,
    begin,
    changed_versions,
    check_free,
    check_places,
    check_resume_or_overwrite,
    check_same_options,
    clear,
    files_of_run,
    read_metrics,
    tidy,
    versions_of_parts,
)
from floppy.run.interrupts import Stop, Watchdog, stoppable
from floppy.run.lock import Held, hold
from floppy.run.loggers import Loggers, find_loggers
from floppy.run.progress import ProgressBar, ProgressCallback
from floppy.tasks.base import (
    FaultyEnvironmentError,
    Task,
    card_notes,
    card_task,
    episode_word,
    selection_view,
)
from floppy.tasks.faults import as_step_timeout, on_stall_now, patience, patience_now
from floppy.teach.codec import CardParts, pack, versions_of

EVALUATIONS_AT_MAXIMUM = 3
"""A run whose selection score has stood at the task's maximum so many times in a row has nothing left to gain."""


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


def distill(
    config: DistillConfig,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    time_limit: float | None = None,
    command: str = "",
    progress: bool | ProgressCallback = True,
    log: str | Sequence[str] = (),
    step_timeout: float | None = None,
    on_stall: Callable[[str], None] | None = None,
    replaces: Sequence[Path] = (),
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
      time_limit: seconds for the run and its final score; it ends at the next evaluation, for a host task at the next
        outer step.
      command: written on the card.
      progress: whether to show a bar on stderr, or what is called after each compiled call instead.
      log: names of loggers that are told the lines of `metrics.jsonl` too, see `floppy.run.loggers`. One that fails
        while the run goes on is left out with a line on stderr.
      step_timeout: seconds after which a reset or step of a host environment has failed, and a compiled call counts as
        stalled, see `Watchdog`; by default 600, or what `floppy.tasks.patience` says.
      on_stall: called with a sentence when a compiled call has stalled, which nothing but the end of the process can
        end; by default what `stalls_end` says, else the sentence goes to stderr.
      replaces: folders of runs that went on from an earlier run in `out`; where this one begins anew, they are cleared.

    Returns:
      The best dataset, scored, and what it took.

    Raises:
      FloppyError: for a configuration that is not allowed, an `out` that is taken, a checkpoint that does not fit, a
        logger that is unknown or not installed, a run that diverged, or an environment that failed (a
        `FaultyEnvironmentError`), in which case `out` holds what was reached.
    """
    clock = Clock(time_limit)
    if step_timeout is not None:
        step_timeout = as_step_timeout(step_timeout)
    if not isinstance(config, DistillConfig):
        raise FloppyError(f"config must be a DistillConfig, as recipe(task) gives one, got {shown(config)}.")
    with patience(step_timeout or patience_now()):  # it plays tasks of the user's own for a moment
        problem = config.problem()
    folder = None if out is None else as_path(out)
    check_resume_or_overwrite(resume=resume, overwrite=overwrite)
    loggers = find_loggers(log, folder)
    with contextlib.ExitStack() as held:
        arena = held.enter_context(open_arena(problem.task, step_timeout=step_timeout))
        show = held.enter_context(_shown(progress, config))
        run = Run(config, problem, command, arena, clock)
        fresh = run.init()  # refuses what no run can be made of, before anything is written
        if folder is not None and not resume:
            check_free(folder, overwrite=overwrite)
        if folder is not None:
            run.held = held.enter_context(hold(folder))
            held.callback(run.leave, folder)
        taken = [each for each in replaces if first_process_says(bool(files_of_run(each)))]
        for each in taken:
            held.enter_context(hold(each))
        state = _prepare(run, folder, fresh, taken, resume=resume, overwrite=overwrite)
        if folder is not None and loggers and is_first_process():
            held.callback(run.loggers.close)
            run.loggers.begin(loggers, folder, config.as_dict(), read_metrics(folder))
        if isinstance(show, ProgressBar):
            show.ends(clock.left, run.scoring_estimate)
        limit = math.inf if arena.has_own_limits else step_timeout or patience_now()
        watchdog = held.enter_context(Watchdog(limit, on_stall or on_stall_now() or _say))
        with stoppable() as interrupted:
            run.stop = interrupted

            def is_to_stop() -> bool:
                interrupted.has_steps = True
                if run.compiles:  # between steps, before the first evaluation, which is compiled too
                    watchdog.expect(0.0)
                else:
                    watchdog.beat()
                # It ends only between two evaluations: at the one that is nearest to the limit.
                reserve = run.scoring_estimate() + clock.lap() / 2
                return first_process_says(clock.is_late(reserve) or interrupted.is_set())

            while int(state.step) < config.outer_steps and not first_process_says(run.is_at_maximum()):
                state = _advance(run, folder, state, is_to_stop, show)
                if is_to_stop():
                    break
        watchdog.expect(run.scoring_estimate())
        if isinstance(show, ProgressBar):
            count, word = config.score_episodes, episode_word(problem.task)
            show.scoring(f"{config.score_learners} fresh learners x {count} {word}")
        dataset = run.dataset(state, score=True)
        if folder is not None and is_first_process():
            run.check_folder()
            save(dataset, folder / DATASET_NAME, overwrite=True)
            run.check_folder()
    return DistillResult(
        dataset,
        outer_steps=int(state.step),
        env_steps=int(state.env_steps),
        seconds=clock.seconds(),
        finished=int(state.step) >= config.outer_steps or run.is_at_maximum(),
        interrupted=interrupted.is_set(),
    )


class Clock:
    """Wall-clock time of a call, and of the parts of a run before it."""

    def __init__(self, limit: float | None = None) -> None:
        self._started, self._limit = time.monotonic(), limit
        self._lap_began: float | None = None
        self.before = 0.0
        """Seconds of earlier parts of the run."""

    def seconds(self) -> float:
        """Of this call."""
        return time.monotonic() - self._started

    def total(self) -> float:
        """Of the run, earlier parts included."""
        return self.before + self.seconds()

    def lap(self) -> float:
        """Seconds since this was last asked; 0 the first time, after which the compilation is over."""
        now, began = time.monotonic(), self._lap_began
        self._lap_began = now
        return 0.0 if began is None else now - began

    def left(self) -> float:
        """Seconds to the time limit; infinite without one."""
        return math.inf if self._limit is None else self._limit - self.seconds()

    def is_late(self, reserve: float) -> bool:
        """Whether the time limit leaves less than a reserve."""
        return self.left() < reserve


class Run:
    """The compiled parts of a run, and the command that made it; holds no state but live environments and scores."""

    def __init__(
        self,
        config: DistillConfig,
        problem: Problem,
        command: str,
        arena: Arena[Any] = ON_DEVICE,
        clock: Clock | None = None,
    ) -> None:
        self.config, self.problem, self.outer = config, problem, config.outer
        self.arena, self.clock = arena, clock or Clock()
        versions = versions_of("jax", "optax", problem.task.package, why=problem.task.task_id)
        self.about = About(command, parents(config, problem), [versions])
        # An argument of the compiled functions, not a constant within: another seed needs no new compilation.
        self.key = replicate(jax.random.key(config.seed))
        self.compiles = True
        self.lengths: set[int] = set()
        self.stop: Stop | None = None  # what a signal means
        self.held: Held | None = None
        self.loggers = Loggers()
        self.has_begun = self.is_void = False  # whether it has begun anew, and ended in its first step
        self.selection_scores: list[float] = []
        self._selection_seconds: list[float] = []

    def init(self) -> RunState:
        """The state before the first step."""
        key = named_key(self.key, "init")
        outer = self.programs().init(key) if self.arena.is_pure else self.outer.init(self.problem, key, self.arena)
        outer = replicate(outer)
        return RunState(
            outer,
            jnp.zeros((), jnp.int32),
            self.outer.distilled(outer),
            self.outer.statistics(outer),
            jnp.asarray(-jnp.inf),
            np.zeros((), np.int64),
        )

    def programs(self) -> "_Programs":
        """What it compiles, which other runs may have done before."""
        parts: tuple[Any, ...] = (self.outer, self.problem, self.arena)
        return _programs(*parts)

    def steps(
        self, state: Any, steps: Sequence[int], is_to_stop: Callable[[], bool]
    ) -> tuple[Any, Figures, FaultyEnvironmentError | None]:
        """The outer loop's state after steps, their figures, and what went wrong in a step that is not among them.

        Those of a host task, which may take minutes, stop early when asked to.
        """
        if self.arena.is_pure:
            state, info = self.programs().advance(state, np.asarray(steps), self.key)
            return state, {name: np.asarray(values) for name, values in info.items()}, None
        infos: list[Info] = []
        step_key, fault = named_key(self.key, "outer step"), None
        try:
            for step in steps:
                state, info = self.outer.step(self.problem, state, jax.random.fold_in(step_key, step), self.arena)
                check_info(self.outer, info)
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
        groups = []
        for index, network in enumerate(self.problem.networks):
            evaluation = Evaluation(task, network, self.config.cloning, learners, episodes)
            group_key = named_key(key, f"group {index}")
            groups.append(evaluation.returns(distilled, statistics, group_key, arena=self.arena))
        return np.concatenate(groups)

    def select(self, state: RunState) -> tuple[RunState, float]:
        """Evaluates the dataset as it stands, on seeds of its own, and keeps it if it is the best so far."""
        started = time.monotonic()
        distilled, statistics = self.outer.distilled(state.outer), self.outer.statistics(state.outer)
        key = jax.random.fold_in(named_key(self.key, "select"), int(state.step))
        config, task = self.config, selection_view(self.problem.task)
        returns = self.returns(task, distilled, statistics, key, config.selection_learners, config.selection_episodes)
        # The scores of the few that did not diverge say nothing of a dataset.
        usable = np.isfinite(returns).all(axis=1).mean() >= 0.5
        score = self._selection_score(finite_returns(returns)) if usable else -float("inf")
        # On a tie the later dataset wins: it has seen more.
        if score >= float(state.best_score):
            state = state._replace(best=distilled, best_statistics=statistics, best_score=jnp.asarray(score))
        self.selection_scores.append(score)
        self._selection_seconds.append(time.monotonic() - started)
        return state, score

    def check_folder(self) -> None:
        """Checks that the run's folder is still there: steps may have taken hours."""
        if self.held is not None:
            self.held.check()

    def leave(self, folder: Path) -> None:
        """Clears the folder of a run that an environment ended before its first step was over: nothing is lost."""
        if self.is_void and is_first_process():
            clear(folder)

    def _selection_score(self, returns: np.ndarray) -> float:
        """The mean return; or the mean of that and a quantile of the learners' own means, where one is asked for."""
        mean, quantile = float(returns.mean(dtype=np.float64)), self.config.selection_quantile
        if not quantile:
            return mean
        low = float(np.quantile(returns.mean(axis=1, dtype=np.float64), quantile))
        return (mean + low) / 2

    def is_at_maximum(self) -> bool:
        """Whether the run has nothing left to gain, and is to end by itself."""
        most, last = self.problem.task.max_return, self.selection_scores[-EVALUATIONS_AT_MAXIMUM:]
        is_there = most is not None and len(last) == EVALUATIONS_AT_MAXIMUM and all(score >= most for score in last)
        return self.config.early_stop and is_there

    def scoring_estimate(self) -> float:
        """Seconds that the final score will take, by what selections took: the first of them has compiled as well."""
        if len(self._selection_seconds) < 2:  # what of it was compilation is not known yet
            return sum(self._selection_seconds)
        config, compilation = self.config, self._selection_seconds[0] - min(self._selection_seconds)
        work = config.score_learners * config.score_episodes
        # By the latest: better policies play longer episodes, and other work on the machine comes and goes.
        latest = self._selection_seconds[-1]
        return compilation + latest * work / (config.selection_learners * config.selection_episodes)

    def dataset(self, state: RunState, *, score: bool) -> DistilledDataset:
        """The best dataset as a file's content; with `score`, evaluated once more on fresh seeds."""
        entry = None
        if score:
            key = named_key(self.key, "score")
            config, task = self.config, self.problem.task
            returns = self.returns(
                task, state.best, state.best_statistics, key, config.score_learners, config.score_episodes
            )
            complaint = POLICIES_DIVERGED if self.problem.is_plain else CLONES_DIVERGED
            entry = score_returns(returns, task.max_return, config.seed, complaint=complaint).as_dict()
        spent = {"env_steps": int(state.env_steps)}
        return to_dataset(self.config, self.problem, state.best, state.best_statistics, entry, self.about, spent)


def parents(config: DistillConfig, problem: Problem) -> list[str]:
    """Files that a run begins with or learns from, as its card lists them."""
    return [*parents_of(problem), *config.outer.parents(problem)]


class _Programs(NamedTuple):
    """What a run on the device compiles."""

    init: Any
    """From a key, the outer loop's state before the first step."""
    advance: Any
    """From a state, the indices of steps and the run's key: the state after them, and their infos."""


@functools.lru_cache(maxsize=8)  # those of a study's cells in turn, without keeping all of them
def _programs(outer: OuterLoop, problem: Problem, arena: Arena[Any]) -> _Programs:
    """Runs that differ in their seed, folder or length alone share them."""

    def advance(state: Any, steps: jax.Array, key: jax.Array) -> tuple[Any, Info]:
        step_key = named_key(key, "outer step")

        def one(state: Any, step: jax.Array) -> tuple[Any, Info]:
            state, info = outer.step(problem, state, jax.random.fold_in(step_key, step), arena)
            check_info(outer, info)
            return state, info

        return jax.lax.scan(one, state, steps)

    return _Programs(compiled(lambda key: outer.init(problem, key, arena), FOR_FEW_CALLS), jax.jit(advance))


def to_dataset(
    config: DistillConfig,
    problem: Problem,
    distilled: Distilled,
    statistics: RunningStatistics | None,
    score: dict[str, Any] | None,
    about: About,
    spent: Mapping[str, int] = types.MappingProxyType({}),
) -> DistilledDataset:
    """A run's parameters with their card; `spent` is what the run has taken."""
    parts = CardParts(
        task=card_task(problem.task),
        actions=problem.actions,
        cloning=config.cloning,
        learners=problem.learners,
        encoder_of=problem.learners[0].layers if config.encoder_layers else 0,
    )
    if not problem.reads_log_std:
        distilled = distilled._replace(log_std=jnp.zeros(0))
    return pack(
        parts,
        distilled,
        statistics,
        algorithm={"name": config.outer.name, "config": config.as_dict(), **spent, **before(problem)},
        command=about.command,
        versions=versions_of_parts(about),
        score=score,
        seed=config.seed,
        parents=about.parents,
        notes=card_notes(problem.task),
    )


def _prepare(
    run: Run, folder: Path | None, fresh: RunState, replaces: Sequence[Path], *, resume: bool, overwrite: bool
) -> RunState:
    """The state to start from; writes the configuration of a new run."""
    if folder is None:
        if resume:
            raise FloppyError("A run kept in memory cannot be resumed: give the folder of the run to go on with.")
        return fresh
    # A run that was killed before it wrote anything begins.
    if resume and first_process_says(bool(files_of_run(folder))):
        return _resume(run, folder, fresh)
    check_free(folder, overwrite=overwrite)  # once more, as the only one who holds it
    begin(folder, run.config, run.about, replaces)
    run.has_begun = True
    return fresh


def _resume(run: Run, folder: Path, fresh: RunState) -> RunState:
    """The state of the latest whole checkpoint in `folder`; `fresh` where the run ended before its first one."""
    check_places(folder)
    before = check_same_options(folder, run.config, run.about.parents)
    state = _last_whole(run, folder, fresh)
    run.about = add_versions(folder, run.config, before, run.about.versions)
    if changed := changed_versions(run.about):
        _say(f"{folder} goes on with other versions than before: {changed}; the card names them all")
    tidy(folder, int(state.step))
    first_process_says(True)  # the others wait for its mending of the log
    log = read_metrics(folder)
    run.clock.before = max((line.get("seconds", 0.0) for line in log), default=0.0)
    scores = [line["selection_score"] for line in log if "selection_score" in line]
    run.selection_scores = [-float("inf") if score is None else score for score in scores]
    outer = state.outer if run.arena.is_pure else run.outer.restarted(state.outer)
    return state._replace(outer=replicate(outer))


def _last_whole(run: Run, folder: Path, fresh: RunState) -> RunState:
    """The latest checkpoint that is as it was written and that the log reaches; `fresh` where there is none at all."""
    log, problem = folder / METRICS_NAME, None
    has_log = log.exists()
    logged = max((line["step"] for line in read_metrics(folder)), default=0)
    for name in (CHECKPOINT_NAME, PREVIOUS_NAME):
        if not (folder / name).exists():
            continue
        try:
            state = load_checkpoint(fresh, folder / name)
            _check_bounds(run, state, folder / name)
            if has_log and logged < int(state.step):
                raise DamagedCheckpointError(
                    f"{folder / METRICS_NAME} ends at step {logged}, the checkpoint {folder / name} stands at "
                    f"{int(state.step)}",
                    "put the log back, or delete it to go on without",
                )
        except DamagedCheckpointError as error:
            problem = problem or error
            continue
        if problem is not None:
            _say(f"{problem.what}; going on from the one before it, at step {int(state.step)}")
            if is_first_process():  # else it would take the place of the whole one when the next is written
                (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
        return state
    if problem is not None:
        raise problem
    _check_is_before_checkpoint(run, folder, logged)
    return fresh


def _check_is_before_checkpoint(run: Run, folder: Path, logged: int) -> None:
    """Checks that a run without a checkpoint can have been ended before its first one.

    That is written after the first evaluation; then the log has its steps, and there may be a dataset without a score.
    """
    dataset = folder / DATASET_NAME
    is_scored = dataset.exists() and load(dataset).card.score is not None
    if logged > run.config.evaluate_every or is_scored:
        held = f"{METRICS_NAME} has {logged} steps" + (f", {DATASET_NAME} a final score" if is_scored else "")
        raise FloppyError(
            f"{folder} has no checkpoint to go on from, though its {held}: put {CHECKPOINT_NAME} back, or give "
            f"{OVERWRITE} to begin again."
        )


def _check_bounds(run: Run, state: RunState, path: Path) -> None:
    """Checks the numbers of a checkpoint that no shape tells of."""
    step = int(state.step)
    if not 0 <= step <= run.config.outer_steps or int(state.env_steps) < 0 or np.isnan(state.best_score):
        raise DamagedCheckpointError(
            f"{path} stands at step {step} of {run.config.outer_steps} with {int(state.env_steps)} environment steps "
            f"and a best score of {float(state.best_score)}"
        )


def _say(sentence: str) -> None:
    """To people, on stderr."""
    if is_first_process():
        print(f"floppy: {sentence}", file=sys.stderr, flush=True)


def _advance(
    run: Run,
    folder: Path | None,
    state: RunState,
    is_to_stop: Callable[[], bool],
    progress: ProgressCallback | None,
) -> RunState:
    """Outer steps till the next evaluation, in one compiled call where that can be; selection, log and checkpoint."""
    first, every = int(state.step), run.config.evaluate_every
    steps = range(first, min((first // every + 1) * every, run.config.outer_steps))
    run.compiles |= run.arena.is_pure and len(steps) not in run.lengths
    run.lengths.add(len(steps))
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
    if run.stop is not None:  # before anyone can see the files
        run.stop.has_steps = True
    if folder is not None and is_first_process():
        run.check_folder()
        if score >= previous_best:
            save(run.dataset(state, score=False), folder / DATASET_NAME, overwrite=True)
        said = score if np.isfinite(score) else None  # JSON has no infinity
        lines = append_metrics(folder / METRICS_NAME, figures, first, selection_score=said, **_clock_figures(run))
        save_checkpoint(state, folder / CHECKPOINT_NAME, previous=folder / PREVIOUS_NAME)
        run.loggers.log(lines)
    run.compiles = False
    if progress is not None:
        latest = {name: float(values[-1]) for name, values in figures.items()}
        progress(int(state.step), run.config.outer_steps, latest | {"score": score, "best": float(state.best_score)})
    return state


def _clock_figures(run: Run) -> dict[str, Any]:
    """What the last line of a call says of the time: seconds of the run so far, and whether the call compiled."""
    return {"seconds": round(run.clock.total(), 3), "compiles": run.compiles}


def _keep_what_was_reached(
    run: Run, folder: Path | None, state: RunState, figures: Figures, first: int, fault: FaultyEnvironmentError
) -> FaultyEnvironmentError:
    """Saves a run that an environment has ended; gives the fault with what was saved."""
    if folder is None:
        return fault
    run.check_folder()
    if run.has_begun and int(state.step) == 0:
        run.is_void = True
        return FaultyEnvironmentError(
            f"{str(fault).removesuffix('.')}; the first outer step was not over, so that {folder} holds no run."
        )
    if state.best_score == -jnp.inf:  # none was evaluated: the latest is the best known
        state = state._replace(best=run.outer.distilled(state.outer), best_statistics=run.outer.statistics(state.outer))
    if not (folder / DATASET_NAME).exists():
        save(run.dataset(state, score=False), folder / DATASET_NAME)
    lines = append_metrics(folder / METRICS_NAME, figures, first, **_clock_figures(run))
    save_checkpoint(state, folder / CHECKPOINT_NAME, previous=folder / PREVIOUS_NAME)
    run.loggers.log(lines)
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


@contextmanager
def _shown(progress: bool | ProgressCallback, config: DistillConfig) -> Iterator[ProgressCallback | None]:
    """The bar, what stands in its place, or None."""
    if not isinstance(progress, bool):
        yield progress
        return
    with ProgressBar(config.outer_steps) if progress else contextlib.nullcontext() as bar:
        yield bar
