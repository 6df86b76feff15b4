"""The tables and figures of the two papers, and the commands behind each, for a CPU and at the paper's scale."""

import contextlib
import csv
import dataclasses
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from floppy.distill import DATASET_NAME
from floppy.errors import FloppyError, one_line, shown

Json = dict[str, Any]

SCALES = ("cpu", "paper")
RESULTS_NAME = "results.jsonl"
"""A line per command that has ended: `command` and `result`."""

BRAX = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted-double-pendulum",
    "reacher",
    "walker2d",
)
MUJOCO = (
    "Hopper-v4",
    "InvertedDoublePendulum-v4",
    "HalfCheetah-v4",
    "Reacher-v4",
    "Walker2d-v4",
    "Ant-v4",
    "Humanoid-v4",
    "HumanoidStandup-v4",
)
RESULTS = Path("docs/results")
MINATAR = ("asterix", "breakout", "freeway", "space-invaders")
GAMES = ("centipede", "space_invaders", "ms_pacman", "pong")

HOPPER = "distill hopper --outer hades --examples 4 --outer-steps 250 --budget 40m --out {out}/hopper"
PENDULUM = (
    "distill inverted-double-pendulum --outer hades --examples 16 --outer-steps 3000 --rate-decay 0.2 --budget 40m "
    "--out {out}/pendulum"
)
NARROW = "--widths 32 64 128 256"
BOTH = "{out}/hopper/dataset.safetensors {out}/pendulum/dataset.safetensors"
MERGED = (f"merge {BOTH} -o {{out}}/both.safetensors", f"multitask {BOTH} --out {{out}}/multitask")
CPU_EVOLUTION = (
    "populations of 2048 at width 512 for thousands of generations, 33.6 billion environment steps on Brax and 168 "
    "billion on MinAtar, of which a CPU core has time for one in a thousand: its learners are narrow, its populations "
    "small, its seeds few"
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure."""

    source: str
    """Where it stands."""
    question: str
    """What it asks."""
    cpu: tuple[str, ...]
    """Commands, the word floppy left out, of minutes to a few hours on one CPU core; `{out}` stands for a folder."""
    paper: tuple[str, ...]
    """The same at the paper's scale."""
    out_of_reach: str = ""
    """What a CPU does not reach of it."""

    def commands(self, scale: str, out: Path) -> list[list[str]]:
        """The words of each command."""
        texts = self.cpu if scale == "cpu" else self.paper
        return [[word.format(out=out) for word in shlex.split(text)] for text in texts]


def _distilled(runs: dict[str, str], after: str = "") -> tuple[str, ...]:
    """Distillations by the names of their folders, each followed by a command on its dataset."""
    commands = []
    for name, options in runs.items():
        commands.append(f"distill {options} --out {{out}}/{name}")
        if after:
            commands.append(after.format(dataset=f"{{out}}/{name}/dataset.safetensors", out=f"{{out}}/{name}"))
    return tuple(commands)


EXPERIMENTS: dict[str, Experiment] = {
    "hades-fig1": Experiment(
        "HaDES, Figure 1",
        "What do whole datasets for cart-pole (two examples) and hopper (four) look like?",
        cpu=(
            "distill cartpole --outer hades --examples 2 --out {out}/cartpole",
            "show {out}/cartpole/dataset.safetensors",
            HOPPER,
            "show {out}/hopper/dataset.safetensors",
        ),
        paper=(
            "distill cartpole --outer hades --examples 2 --out {out}/cartpole",
            "show {out}/cartpole/dataset.safetensors",
            "distill hopper --recipe hades-brax --examples 4 --out {out}/hopper",
            "show {out}/hopper/dataset.safetensors",
        ),
        out_of_reach=CPU_EVOLUTION,
    ),
    "hades-fig3": Experiment(
        "HaDES, Figure 3",
        "How do HaDES, neuroevolution and PPO learn Brax and MinAtar, generation by generation?",
        cpu=(
            "compare cartpole --examples 2 --out {out}/cartpole",
            "compare inverted-double-pendulum --examples 16 --seeds 0 --budget 10m --out {out}/pendulum",
            "compare breakout --seeds 0 --budget 10m --out {out}/breakout",
        ),
        paper=(
            *(f"compare {name} --methods hades-brax neuroevolution ppo --out {{out}}/{name}" for name in BRAX),
            *(f"compare {name} --methods hades-minatar neuroevolution ppo --out {{out}}/{name}" for name in MINATAR),
        ),
        out_of_reach=CPU_EVOLUTION,
    ),
    "hades-fig4": Experiment(
        "HaDES, Figure 4",
        "Does a dataset for hopper teach networks of other widths, at other rates, in other numbers of steps?",
        cpu=(HOPPER, f"transfer {{out}}/hopper/dataset.safetensors {NARROW} --out {{out}}/transfer"),
        paper=(
            "distill hopper --recipe hades-brax --out {out}/hopper",
            "transfer {out}/hopper/dataset.safetensors --out {out}/transfer",
        ),
        out_of_reach=CPU_EVOLUTION,
    ),
    "hades-fig5": Experiment(
        "HaDES, section 5.5 and Figure 5",
        "Does one policy learn several tasks from their merged datasets?",
        cpu=(
            HOPPER,
            PENDULUM,
            *MERGED,
        ),
        paper=(
            "distill hopper --recipe hades-brax --out {out}/hopper",
            "distill inverted-double-pendulum --recipe hades-brax --out {out}/pendulum",
            *MERGED,
        ),
        out_of_reach=CPU_EVOLUTION,
    ),
    "hades-fig6": Experiment(
        "HaDES, Figure 6",
        "What does the number of examples do to the score?",
        cpu=("budget hopper --sizes 4 16 64 --methods hades ppmo --seeds 0 --budget 10m --out {out}/hopper",),
        paper=tuple(
            f"budget {name} --methods hades-brax neuroevolution ppo --out {{out}}/{name}"
            for name in ("halfcheetah", "hopper", "humanoid")
        ),
        out_of_reach=f"half-cheetah and humanoid, whose physics are far slower than hopper's, and {CPU_EVOLUTION}",
    ),
    "hades-fig7-14": Experiment(
        "HaDES, Figures 7 to 14",
        "Figure 4's question for the other environments.",
        cpu=(PENDULUM, f"transfer {{out}}/pendulum/dataset.safetensors {NARROW} --out {{out}}/transfer"),
        paper=_distilled(
            {name: f"{name} --recipe hades-brax" for name in BRAX}, "transfer {dataset} --out {out}/transfer"
        ),
        out_of_reach=CPU_EVOLUTION,
    ),
    "hades-table1": Experiment(
        "HaDES, Table 1",
        "What do classifiers learn from ten distilled images of MNIST and Fashion-MNIST?",
        cpu=_distilled(
            {
                "digits-hades": "images/digits --outer hades",
                "digits-supervised": "images/digits --outer supervised",
                "mnist-hades": "images/mnist --outer hades --evaluate-every 400",
                "mnist-supervised": "images/mnist --outer supervised",
                "fashion-mnist-hades": "images/fashion-mnist --outer hades --evaluate-every 400",
                "fashion-mnist-supervised": "images/fashion-mnist --outer supervised --learners 2",
            }
        ),
        paper=_distilled(
            {
                "mnist-hades": "images/mnist --outer hades --outer-steps 20000",
                "fashion-mnist-hades": "images/fashion-mnist --outer hades --outer-steps 20000",
            }
        ),
        out_of_reach="the paper's populations and numbers of generations; MNIST's and Fashion-MNIST's files have to be "
        "there (FLOPPY_DATA)",
    ),
    "hades-table2": Experiment(
        "HaDES, Table 2",
        "The settings for Brax, which are those of recipe hades-brax; on a CPU the default recipe's.",
        cpu=(HOPPER, PENDULUM),
        paper=_distilled({name: f"{name} --recipe hades-brax" for name in BRAX}),
        out_of_reach=CPU_EVOLUTION,
    ),
    "hades-table3": Experiment(
        "HaDES, Table 3",
        "The settings for MinAtar, which are those of recipe hades-minatar; on a CPU the default recipe's.",
        cpu=_distilled(
            {
                "breakout": "breakout --outer hades --examples 16 --outer-steps 600 --budget 38m",
                "space-invaders": "space-invaders --outer hades --examples 16 --budget 38m",
                "asterix": "asterix --outer hades --examples 16 --smoothness 3 --horizon 300 --environments 4 "
                "--sigma 0.4 --rate 0.04 --rate-decay 0.3 --outer-steps 400 --budget 38m",
                "freeway": "freeway --outer hades --examples 16 --outer-steps 200 --budget 38m",
            }
        ),
        paper=_distilled({name: f"{name} --recipe hades-minatar" for name in MINATAR}),
        out_of_reach=CPU_EVOLUTION,
    ),
    "ppmo-table1": Experiment(
        "PPMO, Table 1",
        "Which fresh learners play cart-pole in one to five dimensions after one step on k_min or 512 examples?",
        cpu=_distilled(
            {f"{n}d-k{n + 1}": f"ndcartpole/{n} --examples {n + 1}" for n in range(1, 6)}
            | {
                "1d-k512": "ndcartpole/1 --examples 512 --recipe ppmo-robust --rate 3e-3 --outer-steps 500",
                "2d-k512": "ndcartpole/2 --examples 512 --recipe ppmo-robust --outer-steps 200",
            }
            | {
                f"{n}d-k512": f"ndcartpole/{n} --examples 512 --recipe ppmo-robust --outer-steps 400"
                for n in range(3, 6)
            },
            "evaluate {dataset} --distribution all",
        ),
        paper=_distilled(
            {
                f"{n}d-k{k}": f"ndcartpole/{n} --examples {k} --recipe ppmo-paper"
                for n in range(1, 6)
                for k in (n + 1, 512)
            },
            "evaluate {dataset} --distribution all",
        ),
    ),
    "ppmo-section4.2": Experiment(
        "PPMO, section 4.2",
        "How few examples are enough?",
        cpu=("minimum-size cartpole --losses mse cross-entropy --out {out}/1d",),
        paper=tuple(f"minimum-size ndcartpole/{n} --recipe ppmo-paper --out {{out}}/{n}d" for n in range(1, 6)),
        out_of_reach="more than one dimension with every loss, which takes hours",
    ),
    "ppmo-table2": Experiment(
        "PPMO, Table 2",
        "What do learners of Atari reach that find some of their layers in the file?",
        cpu=_distilled(
            {f"{game}-l4": f"ale/{game} --encoder-layers 4 --budget 20m" for game in GAMES}
            | {
                "centipede-l0": "ale/centipede --budget 20m --rate 5e-3 --learners 2 --environments 8 "
                "--evaluate-every 20"
            }
        ),
        paper=tuple(
            f"rollback ale/{game} --recipe ppmo-paper --levels 4,3,2,1,0 --budget 24h --out {{out}}/{game}"
            for game in GAMES
        ),
        out_of_reach="a day on four GPUs for each game, in place of twenty minutes on a core",
    ),
    "ppmo-table3": Experiment(
        "PPMO, section 5.4 and Table 3",
        "From how many agents on is a dataset cheaper than training each of them?",
        cpu=("cost cartpole --out {out}/1d", "cost ndcartpole/2 --out {out}/2d"),
        paper=tuple(
            f"cost {task} --recipe ppmo-paper --budget 24h --ppo-budget 24h --out {{out}}/{name}"
            for name, task in {"5d": "ndcartpole/5", "centipede": "ale/centipede"}.items()
        ),
        out_of_reach="Atari, of which neither a dataset nor an agent is trained to the end in hours",
    ),
    "ppmo-table4": Experiment(
        "PPMO, Table 4",
        "What do fresh learners reach in MuJoCo's environments after one step on 64 examples?",
        cpu=_distilled(
            {
                "Hopper-v4": "gymnasium/Hopper-v4 --examples 64 --least-std 0",
                "InvertedDoublePendulum-v4": "gymnasium/InvertedDoublePendulum-v4 --examples 64 --least-std 0",
                "HalfCheetah-v4": "gymnasium/HalfCheetah-v4 --examples 64 --distribution width=256 "
                "--entropy-bonus 0.001 --least-std 0",
                "Reacher-v4": "gymnasium/Reacher-v4 --examples 64 --least-std 0",
            }
            | {
                name: f"gymnasium/{name} --examples 64 --outer-steps 300 --budget 8m"
                for name in ("Walker2d-v4", "Ant-v4", "Humanoid-v4", "HumanoidStandup-v4")
            }
        ),
        paper=_distilled({name: f"gymnasium/{name} --examples 64 --recipe ppmo-paper --budget 24h" for name in MUJOCO}),
        out_of_reach="a day on four GPUs for each environment; Walker2d, Ant and the Humanoids are given minutes",
    ),
}
"""By the names of the papers' tables and figures; those that draw a method and measure nothing are left out."""


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Runs the commands behind a table or figure of the papers; without a name it lists them all."""

    name: ClassVar[str] = "reproduce"
    experiment: Annotated[Positional[str], arg(name="name")] = ""
    """Such as ppmo-table1; left out, the list of names."""
    scale: Literal["cpu", "paper"] = "cpu"
    """cpu: minutes to a few hours on one core. paper: the paper's own sizes and budgets."""
    dry_run: bool = False
    """Print the commands and the published figures, and run nothing."""
    out: Path | None = None
    """Folder of the runs; by default runs/reproduce/NAME-SCALE."""
    resume: bool = False
    """Go on with what is in --out; commands that have ended are not run again."""
    results: Path = RESULTS
    """Folder of this project's tables, which hold the published figures."""
    json: bool = False
    """Print exactly one JSON object."""

    @classmethod
    def parse(cls, words: list[str]) -> "Reproduce":
        """The command from its words."""
        from floppy.cli import parse_options  # which imports this module

        command: Reproduce = parse_options(cls, words, f"floppy {cls.name}")  # type: ignore[arg-type]
        return command

    def run(self, typed: str) -> Json:
        """Lists, prints or runs."""
        if not self.experiment:
            return {
                "experiments": [
                    {"name": name, "source": each.source, "question": each.question}
                    for name, each in EXPERIMENTS.items()
                ]
            }
        if self.experiment not in EXPERIMENTS:
            raise FloppyError(f"{shown(self.experiment)} is no table or figure: choose from {', '.join(EXPERIMENTS)}.")
        experiment = EXPERIMENTS[self.experiment]
        if self.results != RESULTS and not self.results.is_dir():
            raise FloppyError(f"{self.results} is no folder: give that of this project's tables, or none.")
        out = self.out or Path("runs/reproduce") / f"{self.experiment}-{self.scale}"
        commands = experiment.commands(self.scale, out)
        results = {} if self.dry_run else run_all(commands, out, resume=self.resume)
        return {
            "name": self.experiment,
            "source": experiment.source,
            "question": experiment.question,
            "scale": self.scale,
            "commands": [{"command": typed_as(words), "result": results.get(typed_as(words))} for words in commands],
            "figures": figures(experiment, self.scale, out, read_published(self.results), results),
            "out_of_reach": experiment.out_of_reach if self.scale == "cpu" else "",
        }

    def text(self, result: Json) -> str:
        """What is asked, the commands with what they found, the published figures, what is out of reach."""
        if "experiments" in result:
            lines = [f"{each['name']:<17}{each['source']}: {each['question']}" for each in result["experiments"]]
            return "\n".join([*lines, "", "`floppy reproduce NAME --dry-run` prints the commands behind one of them."])
        lines = [f"{result['source']}: {result['question']}", ""]
        for entry in result["commands"]:
            lines.append(entry["command"])
            lines += [] if entry["result"] is None else [f"  {_outcome(entry['result'])}"]
        if result["figures"]:
            lines += ["", "published | in docs/results | here"]
            lines += [
                f"  {each['what']}: {each['published']:g} | {each['recorded']:.1f} | "
                + ("-" if each["here"] is None else f"{each['here']:.1f}")
                for each in result["figures"]
            ]
        if result["out_of_reach"]:
            lines += ["", f"Out of a CPU's reach: {result['out_of_reach']}."]
        return "\n".join(lines)


def run_all(commands: list[list[str]], out: Path, *, resume: bool) -> dict[str, Json]:
    """Runs commands one after the other; gives their results by the commands as they are typed.

    Raises:
      FloppyError: for a folder that is taken, or a command that failed.
      KeyboardInterrupt: after Ctrl-C.
    """
    if out.exists() and not resume:
        raise FloppyError(f"{out} exists: give --resume to go on with it, or another --out.")
    results = read_results(out)
    for number, words in enumerate(commands, start=1):
        command = typed_as(words)
        if command in results:
            continue
        print(f"{number}/{len(commands)}: {command}", file=sys.stderr, flush=True)
        results[command] = run_one([*words, *_going_on(words)])
        out.mkdir(parents=True, exist_ok=True)
        with (out / RESULTS_NAME).open("a") as file:
            file.write(json.dumps({"command": command, "result": results[command]}) + "\n")
    return results


def run_one(words: list[str]) -> Json:
    """Runs a command in this process; gives what it prints as JSON."""
    from floppy.cli import main  # which imports this module

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main([*words, "--json"])
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise FloppyError(f"`{typed_as(words)}` failed: mend what it says above, then give --resume.")
    result: Json = json.loads(said.getvalue())
    if result.get("interrupted"):  # it saved what it had and ended well, and is to be gone on with
        raise KeyboardInterrupt
    return result


def read_results(out: Path) -> dict[str, Json]:
    """The results of commands that have ended, by these commands."""
    path = out / RESULTS_NAME
    try:
        lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        return {line["command"]: line["result"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): remove it, or give another --out.") from error


def read_published(folder: Path) -> list[dict[str, str]]:
    """The rows of all tables in a folder that say by which command and what was published; none without the folder."""
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                published = row.get("paper") or row.get("published")
                if published and row.get("command"):
                    rows.append(row | {"published": published})
    return rows


def figures(
    experiment: Experiment, scale: str, out: Path, published: list[dict[str, str]], results: dict[str, Json]
) -> list[Json]:
    """Published figures beside those recorded for the CPU's distillations, and those of `results`.

    A distillation at the paper's scale has the figures of the one into the same folder on a CPU. A table's first row
    of a distillation is of the learners that it was for, whose score it gives itself; rows with a learner distribution
    have theirs from the evaluation of the dataset.
    """
    commands, found = experiment.commands(scale, out), []
    by_folder = {words[-1]: words for words in experiment.commands("cpu", out) if words[0] == "distill"}
    for words in (words for words in commands if words[0] == "distill"):
        evaluation = ["evaluate", str(Path(words[-1]) / DATASET_NAME)]
        evaluated = [
            results[typed_as(each)] for each in commands if each[:2] == evaluation and typed_as(each) in results
        ]
        known = by_folder.get(words[-1], [])
        rows = [row for row in published if shlex.split(row["command"])[1:-1] == known[:-1]]
        for place, row in enumerate(rows):
            scores = evaluated[0]["distributions"] if evaluated else {}
            if place == 0:
                scores = {row.get("distribution"): results.get(typed_as(words), {}).get("score")} | scores
            score = scores.get(row.get("distribution"))
            which = [f"{name} {row[name]}" for name in ("distribution", "network", "width") if name in row]
            found.append(
                {
                    "what": ", ".join([Path(words[-1]).name, *which]),
                    "published": float(row["published"]),
                    "recorded": float(row["mean"]),
                    "here": None if score is None else score["mean"],
                }
            )
    return found


def typed_as(words: list[str]) -> str:
    """A command as it is typed."""
    return shlex.join(["floppy", *words])


def _going_on(words: list[str]) -> list[str]:
    """Options for what an earlier call has left of a command that did not end."""
    option = "-o" if words[0] == "merge" else "--out"
    if option not in words or not Path(words[words.index(option) + 1]).exists():
        return []
    return ["--overwrite"] if words[0] == "merge" else ["--resume"]


def _outcome(result: Json) -> str:
    """The gist of a command's result."""
    scores = result.get("distributions", {"score": result["score"]} if "score" in result else {})
    if scores:
        return ", ".join(f"{name} {score['mean']:.1f} ± {score['sd']:.1f}" for name, score in scores.items())
    return str(result.get("figure") or result.get("dataset") or result.get("task") or "done")
