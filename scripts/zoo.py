"""Fills the zoo, src/floppy/zoo, with the best datasets of docs/results: `python scripts/zoo.py`, after any result.

It copies the files, writes the index beside them and the table on docs/zoo.md; it distils nothing. Random play of tasks
of which the tables do not know it is measured, once, and kept in docs/results/zoo-tasks.csv. `--check` measures nothing
and writes nothing: exit code 1 if the zoo is not what the tables give.
"""

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from _tables import markdown_table, spread

from floppy import evaluate_random, load, make_task, merge
from floppy.dataset import DistilledDataset
from floppy.dataset.file import origin, to_bytes
from floppy.dataset.zoo_index import FOLDER, INDEX_NAME, Entry, Stated
from floppy.evaluation.score import mean_interval
from floppy.papers.experiments import Page, Run, experiments
from floppy.studies.base import ROWS_NAME, STUDY_NAME
from floppy.tasks import SHORT_NAMES
from floppy.tasks.base import chance_of, profile_of, score_unit
from floppy.tasks.registry import full_task_id

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
DOCS = ROOT / "docs" / "zoo.md"
MARK = "<!-- table: written by scripts/zoo.py -->"
TASKS = RESULTS / "zoo-tasks.csv"

SEED = 1000
"""Of what is measured here, as of the pages of results."""
RANDOM_EPISODES = 400
NAMED_ONLY = ("hades-f", "robust")
"""Methods whose learners are not any fresh networks, or more than one kind: a name means them if it says so."""
CHECKS = {
    "cartpole": (20, 10),
    "vector": (20, 10),
    "grid": (20, 4),
    "continuous": (16, 4),
    "atari": (6, 1),
    "small-images": (20, 599),
    "large-images": (6, 2000),
}
"""Learners and episodes of a check by the task's profile: what seconds on two cores allow."""
SLOW_CHECK = (10, 2)
"""The most where Python steps the environments."""
MERGED = ("brax", "cartpole")
"""Studies of merged datasets whose datasets are in the zoo."""
QUICK = (6, 2)
"""The most for `--quick`."""
QUICK_LEARNERS = {"atari": 3}
"""The most of them where an episode takes long."""
QUICK_TASKS = {"brax": 1, "merged": 1, "minatar": 1, "mujoco": 1}
"""How many of a family `--quick` takes where that is not 2."""

Row = Mapping[str, str]
Tasks = Callable[[str], Row]
"""What docs/results/zoo-tasks.csv says of a task."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A dataset that is to be in the zoo, as the results have it."""

    source: Path
    dataset: DistilledDataset
    method: str
    rank: float
    """By which the best one is chosen."""
    base: str
    """Its name without examples and method."""
    facts: Mapping[str, Any]
    """Fields of its entry."""

    @property
    def suffix(self) -> str:
        """What leaves nothing out."""
        return f"@{self.dataset.examples}-{self.method}{self.encoder}"

    @property
    def encoder(self) -> str:
        return "+encoder" if self.dataset.card.encoder else ""


# What the tables say.


def found_on_pages(tasks: Tasks) -> Iterator[Found]:
    """The best seed of every series of runs whose dataset is part of the project."""
    pages = experiments().pages.values()
    ppo = scores_of_ppo(pages)
    for page in pages:
        rows = page.rows(RESULTS)
        series: dict[str, list[tuple[Run, list[Row]]]] = {}
        for run in page.runs:
            own = [row for row in rows if run.owns(row)]
            if run.kind == "distill" and run.kept and own and (ROOT / run.dataset).exists():
                series.setdefault(run.series, []).append((run, own))
        for each in series.values():
            if found := best_of(each, ppo, tasks):
                yield found


def best_of(runs: list[tuple[Run, list[Row]]], ppo: Mapping[str, float], tasks: Tasks) -> Found | None:
    """The run with the best mean; none where nothing is distilled, or the published code's errors are repeated."""
    run, rows = max(runs, key=lambda pair: float(pair[1][0]["mean"]))  # of equal ones the first
    dataset = load(ROOT / run.dataset)
    card = dataset.card
    if not dataset.examples or card.algorithm["config"].get("outer", {}).get("published_errors"):
        return None
    row = rows[0]  # of the learners that the dataset is for
    published, where = published_of(run, dataset.examples)
    stated = Stated(
        task=card.task,
        unit=tasks(card.task)["unit"],
        **numbers_of(row),
        random=float(tasks(card.task)["random"]),
        ppo=ppo.get(card.task),
        published=published,
        where=where,
    )
    counted = rows if len(card.learners) > 1 else rows[:1]
    return Found(
        source=run.dataset,
        dataset=dataset,
        method=method_of(run, dataset),
        rank=sum(float(each["mean"]) for each in counted) / len(counted),
        base=base_of(card.task),
        facts={
            "command": run.typed,
            "seed": run.seed,
            "seeds": tuple(each.seed for each, _ in runs),
            "seed_means": tuple(float(own[0]["mean"]) for _, own in runs),
            "teacher": teacher_of(run),
            "env_steps": env_steps_of(run, row, dataset),
            "scores": (stated,),
        },
    )


def numbers_of(row: Row) -> dict[str, Any]:
    """A row's score."""
    counts = {name: int(row[name]) for name in ("learners", "episodes", "seed")}
    interval = (float(row["ci_low"]), float(row["ci_high"]))
    return {"mean": float(row["mean"]), "sd": float(row["sd"]), "interval": interval, **counts}


def random_on_pages(task: str) -> float | None:
    """Score of random play, where a page has it."""
    rows = (
        row
        for page in experiments().pages.values()
        for row in page.rows(RESULTS)
        if row.get("random") and full_task_id(row["task"]) == task
    )
    return next((float(row["random"]) for row in rows), None)


def scores_of_ppo(pages: Iterable[Page]) -> dict[str, float]:
    """The best score of plain PPO by task."""
    found: dict[str, float] = {}
    for page in pages:
        plain = [run for run in page.runs if run.label == "PPO"]
        for row in page.rows(RESULTS) if plain else ():
            for run in (run for run in plain if run.owns(row)):
                task = full_task_id(run.task)
                found[task] = max(found.get(task, -float("inf")), float(row["mean"]))
    return found


def published_of(run: Run, examples: int) -> tuple[float | None, str]:
    """A published score and where it stands; of several the one of as many examples, else it says of how many it is."""
    known = experiments()
    cells = [cell for cell in known.further.values() if run.id in (cell.run, cell.taught)]
    cells += [known.cells[run.cell]] if run.cell else []
    cell = next((cell for cell in cells if cell.examples == examples), cells[-1] if cells else None)
    if cell is None:
        return run.published, run.where
    other = "" if cell.examples == examples else f", {cell.examples} examples"
    return float(cell.published), f"{cell.paper}, {cell.where}{other}"


def method_of(run: Run, dataset: DistilledDataset) -> str:
    """By the card, and by whether the run had a teacher."""
    learners, name = dataset.card.learners, str(dataset.card.algorithm["name"])
    if run.taught:
        return "taught"
    if len(learners) > 1:
        return "robust"
    is_one_draw = (learners[0].get("init_seed") or 0) >= 0 and learners[0].get("init_seed") is not None
    return f"{name}-f" if is_one_draw else name


def run_of_file(path: str) -> Run | None:
    """The run that made a file of docs/results."""
    runs = (run for page in experiments().pages.values() for run in page.runs)
    return next((run for run in runs if str(run.dataset) == path), None)


def teacher_file(run: Run) -> str:
    """The file behind --teacher."""
    words = shlex.split(run.command)
    return words[words.index("--teacher") + 1] if "--teacher" in words else ""


def teacher_of(run: Run) -> str:
    """What taught a run."""
    if not run.taught:
        return ""
    path = teacher_file(run)
    return path or "plain PPO's policy, the first stage of the recipe"


def env_steps_of(run: Run, row: Row, dataset: DistilledDataset) -> int | None:
    """Environment steps of a run, and of its teacher's where the table does not count these."""
    config, algorithm = dataset.card.algorithm["config"], dataset.card.algorithm
    if row.get("env_steps"):
        steps = int(row["env_steps"])
    elif {"learners", "environments", "horizon"} <= config["outer"].keys():
        outer = config["outer"]
        steps = int(row["outer_steps"]) * outer["learners"] * outer["environments"] * outer["horizon"]
    else:
        return None
    teacher = run_of_file(teacher_file(run))
    if teacher is not None and not algorithm.get("env_steps_before"):
        page = experiments().pages[teacher.page]
        steps += sum(int(each["env_steps"]) for each in page.rows(RESULTS) if teacher.owns(each))
    return steps


def found_merged(tasks: Tasks) -> Iterator[Found]:
    """The merged datasets of the studies of one policy for several tasks, with their scores there."""
    for name in MERGED:
        study = RESULTS / "studies" / f"merging-{name}"
        asked = json.loads((study / STUDY_NAME).read_text())
        with (study / ROWS_NAME).open(newline="") as file:
            rows = list(csv.DictReader(file))
        sources = [ROOT / path for path in asked["datasets"]]
        words = ["floppy", "merge", *asked["datasets"], "--out", f"merged-{name}.safetensors"]
        dataset = merged(FOLDER / f"merged-{name}.safetensors", sources, shlex.join(words))
        yield Found(
            source=study.relative_to(ROOT),
            dataset=dataset,
            method="merged",
            rank=0.0,
            base=f"merged/{name}",
            facts={
                "command": shlex.join(words),
                "seed": None,
                "seeds": (),
                "seed_means": (),
                "teacher": "",
                "env_steps": None,
                "scores": tuple(merged_score(task, tasks, rows, asked) for task in dataset.card.task.split("+")),
            },
        )


def merged(path: Path, sources: list[Path], command: str) -> DistilledDataset:
    """The dataset that is in the zoo already, if it is of these sources; else a new one."""
    datasets = [load(source) for source in sources]
    if path.exists() and (known := load(path)).card.parents == [origin(each) for each in datasets]:
        return known
    return merge(datasets, command=command)


def merged_score(task: str, tasks: Tasks, rows: list[Row], asked: Mapping[str, Any]) -> Stated:
    """Of a task, by the study's learners."""
    own = [float(row["score"]) for row in rows if (row["task"], row["agent"]) == (task, "merged")]
    (random,) = (float(row["score"]) for row in rows if (row["task"], row["agent"]) == (task, "random"))
    mean = sum(own) / len(own)
    return Stated(
        task=task,
        unit=tasks(task)["unit"],
        mean=mean,
        sd=(sum((each - mean) ** 2 for each in own) / (len(own) - 1)) ** 0.5,
        interval=mean_interval(own),
        learners=asked["learners"],
        episodes=asked["episodes"],
        seed=asked["seed"],
        random=random,
    )


# Names.


def base_of(task: str) -> str:
    """The name of a task in the zoo: what people call it, else its id."""
    family, _, rest = task.partition("/")
    if family == "ndcartpole":
        return "cartpole" if rest == "1" else f"cartpole/{rest}d"
    if family == "gymnax" and rest.endswith("-MinAtar"):
        return f"minatar/{short_name(task)}"
    if family == "gymnax" and is_classic_control(rest):
        return f"classic/{rest}"
    if family == "gymnasium" and is_mujoco(rest):
        return f"mujoco/{rest}"
    return f"atari/{rest}" if family == "ale" else task


def short_name(task: str) -> str:
    return next((short for short, full in SHORT_NAMES.items() if full == task), "")


def is_classic_control(rest: str) -> bool:
    import gymnax

    return "classic_control" in type(gymnax.make(rest)[0]).__module__


def is_mujoco(rest: str) -> bool:
    import gymnasium

    spec = gymnasium.registry.get(rest)
    return spec is not None and str(spec.entry_point).startswith("gymnasium.envs.mujoco")


def bases_of(found: Found) -> list[str]:
    """All names of its task, without examples and method; the usual one first."""
    task = found.dataset.card.task
    rest = task.rpartition("/")[2] if "+" not in task else ""
    tails = [each for each in (short_name(task), rest) if re.search("[a-z]", each)]
    first = ["cartpole/1d"] if found.base == "cartpole" else []
    return list(dict.fromkeys([found.base, *first, task, *tails]))


def names_of(all_found: list[Found]) -> dict[str, Found]:
    """What every name means: the best dataset among those for which it leaves something open."""
    meant: dict[str, Found] = {}
    for found in sorted(all_found, key=lambda each: -each.rank):  # stable: of equal ones the first on the pages
        k, method = f"@{found.dataset.examples}", f"-{found.method}"
        if found.method == "merged":
            suffixes = [""]
        else:
            suffixes = [k + method, method] + ([] if found.method in NAMED_ONLY else [k, ""])
        for base in bases_of(found):
            for suffix in suffixes:
                meant.setdefault((base + suffix + found.encoder).casefold().replace("_", "-"), found)
    return meant


def own_names(found: Found, meant: Mapping[str, Found]) -> list[str]:
    """A dataset's names: the shortest first, then the one that leaves nothing out."""
    spelt = {}
    k, method, encoder = f"@{found.dataset.examples}", f"-{found.method}", found.encoder
    for base in bases_of(found):
        for suffix in ("", k, method, k + method):
            name = base + suffix + encoder
            if meant.get(key := name.casefold().replace("_", "-")) is found:
                spelt.setdefault(key, name)
    of_base = [name for name in spelt.values() if name.startswith(found.base) and name[len(found.base) :][:1] != "/"]
    shortest = min(of_base, key=len)
    whole = [] if found.method == "merged" else [found.base + found.suffix]
    return list(dict.fromkeys([shortest, *whole, *spelt.values()]))


# What is measured.


def task_rows(*, measure: bool) -> Tasks:
    """What gives the rows of tasks; with `measure` those that are not there yet are made, and kept."""
    known: dict[str, Row] = {}
    if TASKS.exists():
        with TASKS.open(newline="") as file:
            known = {row["task"]: row for row in csv.DictReader(file)}

    def row(task: str) -> Row:
        if task not in known and measure:
            known[task] = task_row(task)
            print(*known[task].values(), file=sys.stderr, flush=True)
            with TASKS.open("w", newline="") as file:
                writer = csv.DictWriter(file, known[task].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(known[each] for each in sorted(known))
        return known[task]

    return row


def task_row(task: str) -> Row:
    """What checks go by, and random play; of labelled images the accuracy of always answering with one class."""
    made = make_task(task)
    profile, chance, known = profile_of(made), chance_of(made), random_on_pages(task)
    random = known if chance is None else chance
    if random is None:
        random = evaluate_random(made, episodes=RANDOM_EPISODES, seed=SEED).mean
    return {
        "task": task,
        "profile": profile.name,
        "is_slow": str(int(profile.is_slow)),
        "unit": score_unit(made),
        "random": str(random),
        "episodes": str(RANDOM_EPISODES if chance is None else 0),
    }


# What is written.


def made(*, measure: bool) -> list[tuple[Entry, bytes]]:
    """The zoo as the tables give it, every entry with its file's bytes; with `measure` what they lack is measured."""
    tasks = task_rows(measure=measure)
    by_suffix: dict[str, Found] = {}
    for found in (*found_on_pages(tasks), *found_merged(tasks)):  # of two with the same whole name the better one
        key = found.base + found.suffix
        if key not in by_suffix or by_suffix[key].rank < found.rank:
            by_suffix[key] = found
    all_found = in_order(by_suffix.values())
    meant, quick = names_of(all_found), quick_ones(all_found)
    return [entry_of(found, meant, tasks, is_quick=found in quick) for found in all_found]


def in_order(all_found: Iterable[Found]) -> list[Found]:
    """Families, and the tasks of each, as they come; of a task the best dataset first."""
    all_found = list(all_found)
    families = list(dict.fromkeys(map(family_of, all_found)))
    bases = list(dict.fromkeys(found.base for found in all_found))

    def place(found: Found) -> tuple[Any, ...]:
        return families.index(family_of(found)), bases.index(found.base), found.method in NAMED_ONLY, -found.rank

    return sorted(all_found, key=place)


def family_of(found: Found) -> str:
    return found.base.partition("/")[0]


def quick_ones(all_found: list[Found]) -> list[Found]:
    """The best datasets of some tasks of every family, those of the fewest examples."""
    by_family: dict[str, dict[str, Found]] = {}
    for found in all_found:
        by_family.setdefault(family_of(found), {}).setdefault(found.base, found)
    return [
        found
        for family, tasks in by_family.items()
        for found in sorted(tasks.values(), key=lambda each: each.dataset.examples)[: QUICK_TASKS.get(family, 2)]
    ]


def check_of(row: Row) -> tuple[int, int]:
    """Learners and episodes of a check, for a task."""
    learners, episodes = CHECKS[row["profile"]]
    return (min(learners, SLOW_CHECK[0]), min(episodes, SLOW_CHECK[1])) if int(row["is_slow"]) else (learners, episodes)


def entry_of(found: Found, meant: Mapping[str, Found], tasks: Tasks, *, is_quick: bool) -> tuple[Entry, bytes]:
    """An entry of the index, and its file."""
    card, names = found.dataset.card, own_names(found, meant)
    is_merged = found.method == "merged"
    file = re.sub(r"[^\w.]+", "-", found.base if is_merged else found.base + found.suffix) + ".safetensors"
    if is_merged:
        known = FOLDER / file
        data = known.read_bytes() if known.exists() and load(known).card == card else to_bytes(found.dataset)
    else:
        data = (ROOT / found.source).read_bytes()
    row = tasks(found.facts["scores"][0].task)
    check = check_of(row)
    is_labelled = not int(row["episodes"])  # whose episodes cost next to nothing
    learners = min(check[0], QUICK_LEARNERS.get(row["profile"], QUICK[0]))
    quick = learners, check[1] if is_labelled else min(check[1], QUICK[1])
    entry = Entry(
        name=names[0],
        aliases=tuple(names[1:]),
        family=family_of(found),
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        source=str(found.source),
        task=card.task,
        examples=found.dataset.examples,
        encoder_layers=(card.encoder or {}).get("layers", 0),
        method=found.method,
        licence=card.licence,
        versions=tuple(f"{name} {version}" for name, version in sorted(card.versions.items())),
        check=check,
        quick=quick,
        is_quick=is_quick,
        **found.facts,
    )
    return entry, data


def index_text(all_entries: Iterable[Entry]) -> str:
    """The index."""
    return json.dumps([entry.as_json() for entry in all_entries], indent=1, allow_nan=False) + "\n"


def docs_table(all_entries: Iterable[Entry]) -> str:
    """The table on docs/zoo.md."""
    lines = []
    for entry in all_entries:
        for number, score in enumerate(entry.scores):
            first = [f"`{entry.name}`", str(entry.examples)] if number == 0 else ["", ""]
            rest = [score.random, score.ppo, score.published]
            lines.append([*first, score.task, spread(score.mean, score.sd), *map(figure, rest)])
    head = ["name", "examples", "task", "score", "random", "PPO", "published"]
    return markdown_table(head, lines, narrow=True)


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def page_text(all_entries: Iterable[Entry]) -> str:
    return f"{DOCS.read_text().split(MARK)[0]}{MARK}\n\n{docs_table(all_entries)}\n"


def faults(all_made: list[tuple[Entry, bytes]]) -> list[str]:
    """What of the zoo is not as the tables give it."""
    wrong = [entry.file for entry, data in all_made if not is_same(FOLDER / entry.file, data)]
    wrong += [path.name for path in strangers(all_made)]
    index = index_text(entry for entry, _ in all_made).encode()
    wrong += [] if is_same(FOLDER / INDEX_NAME, index) else [INDEX_NAME]
    page = page_text(entry for entry, _ in all_made).encode()
    return wrong + ([] if is_same(DOCS, page) else [DOCS.name])


def is_same(path: Path, data: bytes) -> bool:
    return path.exists() and path.read_bytes() == data


def strangers(all_made: list[tuple[Entry, bytes]]) -> list[Path]:
    """Files of the zoo that no entry has."""
    return sorted(set(FOLDER.glob("*.safetensors")) - {FOLDER / entry.file for entry, _ in all_made})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if anything would change")
    asked = parser.parse_args()
    os.environ.setdefault("FLOPPY_DATA", str((ROOT / "../shared/reference/images").resolve()))
    all_made = made(measure=not asked.check)
    if asked.check:
        wrong = faults(all_made)
        sys.exit(f"not what the tables give: {', '.join(wrong)}" if wrong else 0)
    for path in strangers(all_made):
        path.unlink()
    for entry, data in all_made:
        (FOLDER / entry.file).write_bytes(data)
    (FOLDER / INDEX_NAME).write_text(index_text(entry for entry, _ in all_made))
    DOCS.write_text(page_text(entry for entry, _ in all_made))
    print(f"{len(all_made)} datasets, {sum(len(data) for _, data in all_made):,} bytes")


if __name__ == "__main__":
    main()
