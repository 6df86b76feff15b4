"""Commands that distil: `distill` and `baseline`. Their options are the fields of `DistillConfig`."""

import dataclasses
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from floppy.cli.base import Call, Command, Json, episodes_text, first_word, score_text
from floppy.cli.field_options import NAME, Group, Part, options_of
from floppy.cli.interrupts import answer_aborts
from floppy.cli.output import keep_stdout
from floppy.cli.parsing import peek
from floppy.cloning.base import CLONINGS
from floppy.errors import MAX_COUNT, FloppyError, check_number, must_be_one_of
from floppy.evaluation.evaluate import evaluate, evaluate_random
from floppy.evaluation.random_play import Comparison, beside_random
from floppy.fields import CHOICES, bounded, check_fields, one_of
from floppy.files import size_text
from floppy.learner.distribution import parse_distributions
from floppy.outer import OUTER_LOOPS, HaDES
from floppy.outer.base import is_for
from floppy.parallel import LostProcessError, Processes, is_first_process, use_all_cores
from floppy.recipes import RECIPES, STAGED, apply_budget, neuroevolution_baseline, ppo_baseline, recipe, with_strategy
from floppy.run.config import DistillConfig
from floppy.run.folder import DATASET_NAME
from floppy.run.loop import DistillResult, distill
from floppy.run.plan import plan
from floppy.run.stages import Stage, distill_stages
from floppy.studies.runs import BASELINES
from floppy.tasks.base import Task, episode_word
from floppy.tasks.faults import STEP_TIMEOUT
from floppy.tasks.registry import JAX_FAMILIES, full_task_id, make_task

RANDOM = "random"
"""The baseline of random actions."""

RANDOM_SECONDS = 10.0
RANDOM_SHARE = 0.05
"""What a budget of time keeps for random play after the run: so many seconds, or so much of a short budget."""

GROUPS = (
    Group(
        "",
        "",
        (
            *("task", "method", "levels", "examples", "distribution", "cloning_kind", "outer_loop", "recipe"),
            *("budget", "seed", "out", "resume", "overwrite"),
        ),
    ),
    Group(
        "dataset",
        "What is distilled.",
        (
            *("targets", "initial_examples", "start", "observation_deviation", "frozen_normaliser"),
            *("scaled_actions", "modules", "data"),
        ),
    ),
    Group("learner", "Who learns.", ("network", "encoder_layers")),
    Group("cloning", "How it learns from the dataset.", ("initial_rate", "learned_rate", "held_rates", "cloning")),
    Group("outer-loop", "How the dataset is improved.", ("outer_steps", "outer")),
    Group("run", "How the run is evaluated, carried out and shown.", ()),
)


@dataclasses.dataclass(frozen=True)
class Kinds:
    """What decides about a configuration's defaults, and about its options."""

    outer_loop: str = dataclasses.field(default="", metadata={NAME: "outer", CHOICES: lambda: OUTER_LOOPS})
    """The outer loop, with the recipe of its name if there is one. Each has options of its own, which --outer NAME
    --help lists."""
    cloning_kind: str = dataclasses.field(default="", metadata={NAME: "cloning", CHOICES: lambda: CLONINGS})
    """The kind of cloning, with options of its own; where it is not the recipe's, defaults that suit it."""
    recipe: str = one_of("", lambda: ("", *RECIPES))
    """Where the defaults come from; by default what suits the task, or the outer loop if one is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill(Command):
    """Distils a task into a few synthetic examples. The defaults shown are those of the recipe for TASK."""

    name: ClassVar[str] = "distill"
    positional: ClassVar[tuple[str, ...]] = ("task",)
    groups: ClassVar[tuple[Group, ...]] = GROUPS

    config: DistillConfig
    kinds: Kinds = dataclasses.field(default_factory=Kinds)
    budget: str = ""
    """When to stop a run: after a number of steps, over which rates are annealed (500steps), or after a time (60s, 10m,
    2h), the final score included. A time ends it at the next of the evaluations, which come every --evaluate-every
    steps, or on host tasks at the next step."""
    out: Path | None = None
    """Folder of the run; by default runs/TASK-kK-seedS."""
    resume: bool = False
    """Go on with what is in --out."""
    overwrite: bool = False
    """Replace what is in --out."""
    plan: bool = False
    """Say what the run would take, in steps, memory and time, after measuring two steps; nothing is written."""
    teacher_steps: int = bounded(0, least=0, most=MAX_COUNT)
    """With recipe taught, outer steps of the first stage, the teacher's; 0 for the recipe's number. With --teacher FILE
    there is no such stage, and that file's policy is imitated."""
    imitation_steps: int = bounded(0, least=0, most=MAX_COUNT)
    """With recipe taught, outer steps of the second stage, imitation; 0 for the recipe's number."""
    step_timeout: float = STEP_TIMEOUT
    """Seconds after which a run ends in which nothing moves: a reset or step of a host environment, or a compiled call
    that also takes 20 times as long as any before it; the first one, which compiles, may take 6 times as long."""
    log: tuple[str, ...] = ()
    """Loggers that are told what metrics.jsonl says too; of another name than csv they need an extra. They are no part
    of the run: it goes on with others, and if one of them fails."""
    shared: Processes = dataclasses.field(default_factory=Processes)

    @classmethod
    def given(cls, words: list[str]) -> Json:
        """The configuration that task and recipe give, with its own kinds of cloning and outer loop."""
        return configured(words, cls.name)

    @classmethod
    def elsewhere(cls) -> dict[str, str]:
        """Those of other outer loops and kinds of cloning."""
        return options_of_others()

    @classmethod
    def parse(cls, words: list[str]) -> Self:
        """As for other commands, once it is known on which devices, and with which processes, the run is shared."""
        join_processes(words)
        spread_evolution(words)
        return super().parse(words)

    def run(self, call: Call) -> Json:
        """Distils, and writes the run's folder."""
        check_fields(self)
        config, time_limit = apply_budget(self.config, self.budget)
        if self.plan and self.stages(config):
            raise FloppyError(f"--plan is about one run, and recipe {self.kinds.recipe} takes several: leave one out.")
        if self.plan:
            planned = plan(config)
            return {"task": config.task} | dataclasses.asdict(planned) | {"seconds": planned.seconds}
        folder = self.out or Path("runs") / run_name(config)
        make: Any = partial(distill_stages, stages) if (stages := self.stages(config)) else partial(distill, config)
        result: DistillResult = make(
            folder,
            time_limit=_less_random_play(call.left(time_limit)),
            command=call.typed,
            resume=self.resume,
            overwrite=self.overwrite,
            log=self.log,
            step_timeout=self.step_timeout,
        )
        _say_how_to_go_on(result)
        beside = None if result.interrupted else _beside_random(result)
        return {
            "task": result.dataset.card.task,
            "dataset": str(folder / DATASET_NAME),
            "score": result.dataset.card.score,
            "beside_random": None if beside is None else beside.as_json(),
            "outer_steps": result.outer_steps,
            "env_steps": result.env_steps,
            "seconds": result.seconds,
            "finished": result.finished,
            "interrupted": result.interrupted,
        }

    def stages(self, config: DistillConfig) -> list[Stage]:
        """The runs that the recipe takes; none where it is the one of the configuration."""
        if self.kinds.recipe in STAGED:
            staged = STAGED[self.kinds.recipe]
            return staged(config, teacher_steps=self.teacher_steps, imitation_steps=self.imitation_steps)
        if self.teacher_steps or self.imitation_steps:
            raise FloppyError("--teacher-steps and --imitation-steps are of recipe taught: give --recipe taught.")
        return []

    def text(self, result: Json) -> str:
        """The score and where the dataset lies, or the plan."""
        if self.plan:
            return plan_text(result)
        task, score = result["task"], result["score"]
        word = episode_word(make_task(task))
        seen = "environment steps" if word == "episodes" else f"{word} seen"
        played = f"{score['learners']} fresh learners x {episodes_text(task, score)}"
        return (
            f"{task}: {score_text(task, score)} over {played}, "
            f"after {result['outer_steps']} outer steps ({result['env_steps']:,} {seen}) in {result['seconds']:.0f} s\n"
            f"{_beside_text(result['beside_random'])}{result['dataset']}"
        )


@dataclasses.dataclass(frozen=True)
class RandomActions:
    """All that random actions need of a configuration."""

    task: str
    """Task id, such as cartpole, ndcartpole/3 or gymnax/Acrobot-v1."""
    seed: int = 0
    """Seed of everything random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline(Command):
    """Scores what a dataset is compared with: plain PPO or neuroevolution through the same code, or random actions."""

    name: ClassVar[str] = "baseline"
    positional: ClassVar[tuple[str, ...]] = ("task",)
    groups: ClassVar[tuple[Group, ...]] = GROUPS

    config: DistillConfig | RandomActions
    method: str = one_of("ppo", lambda: (*BASELINES, RANDOM))
    """What is scored."""
    episodes: int = 1000
    """Episodes of the final evaluation."""
    out: Path | None = None
    """Folder of the run; by default nothing is kept."""
    budget: str = ""
    """When to stop the run: after a number of steps, over which rates are annealed (500steps), or after a time (60s,
    10m)."""
    resume: bool = False
    """Go on with the run in --out."""
    overwrite: bool = False
    """Replace the run in --out."""
    step_timeout: float = STEP_TIMEOUT
    """Seconds after which a run ends in which nothing moves, as for distill."""
    shared: Processes = dataclasses.field(default_factory=Processes)

    @classmethod
    def parse(cls, words: list[str]) -> Self:
        """As for other commands, once it is known on which devices, and with which processes, the run is shared."""
        join_processes(words)
        spread_evolution(words)
        return super().parse(words)

    @classmethod
    def given(cls, words: list[str]) -> Json:
        """The configuration that task and method give."""
        task = first_word(words, cls.name, "cartpole --method random")
        known = peek(words[1:], "method", "strategy", "distribution", "network")
        if known["method"] == RANDOM:
            return {"config": Part(RandomActions, {})}
        distribution = known["distribution"] or known["network"]
        config = BASELINES.get(known["method"], ppo_baseline)(
            task, **({"distribution": distribution} if distribution else {})
        )
        if known["strategy"] and hasattr(config.outer, "strategy"):
            config = dataclasses.replace(config, outer=with_strategy(config.outer, known["strategy"]))
        return {"config": config}

    @classmethod
    def elsewhere(cls) -> dict[str, str]:
        """Those of other methods."""
        found: dict[str, list[str]] = {}
        for method, make in BASELINES.items():
            for option in options_of(cls, {"config": make("cartpole")}):
                found.setdefault(option.name, []).append(f"--method {method}")
        return {option: " or ".join(methods) for option, methods in found.items()}

    def run(self, call: Call) -> Json:
        """Runs the method and scores it by complete episodes."""
        check_number("episodes", self.episodes, least=1)  # said before a long run, not after it
        started = time.monotonic()
        task = make_task(self.config.task)
        ended = self._random(task) if isinstance(self.config, RandomActions) else self._learned(self.config, call)
        return {"task": task.task_id, "method": self.method} | ended | {"seconds": time.monotonic() - started}

    def _random(self, task: Task) -> Json:
        of_run = {"out": self.out, "budget": self.budget, "resume": self.resume, "overwrite": self.overwrite}
        if given := [f"--{name}" for name, value in of_run.items() if value]:
            raise FloppyError(f"--method {RANDOM} takes no run: leave {' and '.join(given)} out.")
        score = evaluate_random(task, episodes=self.episodes, seed=self.config.seed)
        return {"score": score.as_dict()}

    def _learned(self, config: DistillConfig, call: Call) -> Json:
        task = make_task(config.task)
        if not is_for(config.outer, task):
            fit = [*(name for name, make in BASELINES.items() if is_for(make(config.task).outer, task)), RANDOM]
            raise must_be_one_of(f"method for {task.task_id}", self.method, fit)
        config, time_limit = apply_budget(config, self.budget)
        layers = parse_distributions(config.distribution)[0].layers
        if config.encoder_layers != layers:
            raise FloppyError(
                f"--encoder-layers must be {layers} in a baseline, all that its policy has, got "
                f"{config.encoder_layers}: leave it out."
            )
        run = distill(
            config,
            self.out,
            time_limit=call.left(time_limit),
            command=call.typed,
            resume=self.resume,
            overwrite=self.overwrite,
            step_timeout=self.step_timeout,
        )
        if self.out:
            _say_how_to_go_on(run)
        (score,) = evaluate(run.dataset, learners=1, episodes=self.episodes, seed=config.seed).values()
        totals: Json = {"outer_steps": run.outer_steps, "env_steps": run.env_steps, "finished": run.finished}
        return totals | {"score": score.as_dict()}

    def text(self, result: Json) -> str:
        """The score."""
        task, score = result["task"], result["score"]
        return f"{task}, {result['method']}: {score_text(task, score)} over {episodes_text(task, score)}"


def _less_random_play(seconds: float | None) -> float | None:
    """A budget of time without what random play may take after the run."""
    return None if seconds is None else seconds - min(RANDOM_SECONDS, RANDOM_SHARE * seconds)


def _beside_random(result: DistillResult) -> Comparison | None:
    """How the score stands to random play; the process that prints the result asks."""
    card = result.dataset.card
    if card.score is None or not is_first_process():
        return None
    return beside_random(make_task(card.task), card.score, card.seed or 0)


def _beside_text(beside: Json | None) -> str:
    """The same in a sentence, on a line of its own."""
    if beside is None:
        return ""
    random, episodes = f"{beside['random']:.1f}", beside["episodes"]
    what = f"random play, {random} over {episodes} episodes" if episodes else f"the commonest class, {random}"
    if beside["is_clear"]:
        return f"{beside['difference']:.1f} above {what}\n"
    return f"not clearly above {what}: a longer run, or another --outer or --recipe, may do better\n"


def plan_text(result: Json) -> str:
    """What a run would take."""
    return (
        f"{result['task']}: {result['outer_steps']} outer steps, {result['env_steps']:,} environment steps, "
        f"{result['evaluations']} evaluations\n"
        f"dataset {result['floats']} floats, checkpoint {size_text(result['checkpoint_bytes'])}, "
        f"memory {size_text(result['memory_bytes'])}\n"
        f"about {result['seconds']:.0f} s: {result['compilation_seconds']:.0f} s of compilation, "
        f"{1000 * result['step_seconds']:.1f} ms per step, {result['evaluation_seconds']:.2f} s per evaluation, "
        f"{result['score_seconds']:.1f} s for the score"
    )


def configured(words: list[str], name: str) -> Json:
    """The parts `config` and `kinds` of a command that begins with a task."""
    config = default_config(words, name)
    return {"config": config, "kinds": Kinds(config.outer.name, type(config.cloning).__name__)}


def default_config(words: list[str], command: str) -> DistillConfig:
    """What the task, which is the first of the words, and the recipe give the other options as their defaults."""
    task = first_word(words, command, "cartpole")
    known = peek(words[1:], "outer", "recipe", "cloning", "strategy", "examples", "distribution", "network")
    # Anything but a plain positive number is left for the parser to refuse.
    examples = int(known["examples"]) if re.fullmatch("[1-9][0-9]{0,8}", known["examples"]) else None
    loop = OUTER_LOOPS.find(known["outer"]) if known["outer"] else None
    name = known["recipe"] or (known["outer"] if known["outer"] in RECIPES else "")
    changes: dict[str, Any] = {"outer": loop()} if loop and not name else {}
    default = recipe(
        task,
        name,
        examples=examples,
        cloning=known["cloning"] or None,
        strategy=known["strategy"] or None,
        distribution=known["distribution"] or known["network"] or None,
        **changes,
    )
    if known["outer"] not in ("", default.outer.name):
        raise FloppyError(
            f"--outer must be {default.outer.name} for recipe {name}, got {known['outer']}: give one of the two."
        )
    return default


def options_of_others() -> dict[str, str]:
    """The options of every outer loop and kind of cloning, and what chooses it."""
    found: dict[str, list[str]] = {}
    for choice, prefix, kinds in (("--outer", "", OUTER_LOOPS), ("--cloning", "cloning.", CLONINGS)):
        for name, kind in kinds.items():
            for field in dataclasses.fields(kind):
                found.setdefault(prefix + field.name.replace("_", "-"), []).append(f"{choice} {name}")
    return {option: " or ".join(choices) for option, choices in found.items()}


def run_name(config: DistillConfig) -> str:
    """The default folder of a run."""
    task = re.sub(r"[^\w.+=-]", "-", make_task(config.task).task_id)
    return f"{task}-k{config.examples}-seed{config.seed}"


def join_processes(words: list[str]) -> None:
    """Connects the processes that share a run, before anything makes JAX look for its devices."""
    known = peek(words, *(field.name for field in dataclasses.fields(Processes)))
    counts = {name: known[name] for name in ("processes", "process") if known[name]}
    if not all(re.fullmatch("-?[0-9]{1,9}", count) for count in counts.values()):
        return  # the parser will refuse it
    shared = Processes(known["coordinator"], **{name: int(count) for name, count in counts.items()})
    if shared.coordinator:
        answer_aborts(str(LostProcessError("it is not heard of any more")))
    shared.join()
    if shared.coordinator:
        keep_stdout()  # Gloo writes to its file descriptor


def spread_evolution(words: list[str]) -> None:
    """Lets evolution use all cores of a CPU, before anything makes JAX look for its devices.

    Its candidates have nothing to do with each other. The small products of a meta-gradient, with sums over all
    learners between them, are no faster on several devices.
    """
    known = peek(words, "outer", "recipe", "method", "coordinator")
    evolves = known["outer"] == HaDES.name or known["recipe"].startswith(HaDES.name)
    evolves = evolves or BASELINES.get(known["method"]) is neuroevolution_baseline
    is_played_by_jax = bool(words) and full_task_id(words[0]).partition("/")[0] in JAX_FAMILIES
    if evolves and is_played_by_jax and not known["coordinator"]:
        use_all_cores()


def _say_how_to_go_on(result: DistillResult) -> None:
    if not result.finished:
        again = f"the same command with --resume goes on from step {result.outer_steps}"
        print(f"floppy: stopped early; {again}", file=sys.stderr)
