"""The tables of each kind of page, of those that sum them up, and the columns of the CSVs that they are made from."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from floppy import load
from floppy.papers.cells import Answer, answers, count_reached
from floppy.papers.experiments import Cell, Experiments, Page, Run
from floppy.studies import draw_study, read_study
from floppy.studies.base import ROWS_NAME, STUDY_NAME

Row = dict[str, str]
Rows = list[Row]
Columns = dict[str, str | Callable[[Row], str]]
"""By heading: the CSV's column, or what makes the text."""

SCORE = "mean sd learners episodes"
COLUMNS = {
    kind: names.split()
    for kind, names in {
        "cartpole": f"set dimensions examples distribution {SCORE} max_share seed ci_low ci_high paper "
        "distillation_seed outer_steps command",
        "hades": f"set task examples width own_draw {SCORE} seed ci_low ci_high published distillation_seed "
        "outer_steps env_steps seconds command",
        "ppmo": f"task examples encoder_layers method {SCORE} worst seed ci_low ci_high random published "
        "distillation_seed outer_steps env_steps seconds command",
        "classic": f"task examples method {SCORE} seed ci_low ci_high random published distillation_seed outer_steps "
        "env_steps seconds command",
        "images": f"task method distillation_seed network {SCORE} seed ci_low ci_high paper examples floats "
        "outer_steps env_steps seconds command",
        "published": "file distribution learners episodes score mean sd seed published options",
    }.items()
}
"""Of the CSV of each kind of page."""

DISTRIBUTIONS = ("lambda", "ortho1", "xavier", "xavier1", "random-width", "random-depth")
"""The columns of the PPMO paper's Table 1."""
OWN = {"PPMO": "", "PPMO, taught": ", taught", "Taught": ", taught", "HaDES": ", by evolution"}
"""Methods of the datasets that this project made, on pages of this kind, and what their summary adds to the task."""


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]], *, narrow: bool = False) -> str:
    """A table in Markdown; a narrow one spares spaces."""

    def line(cells: Iterable[str]) -> str:
        return "|" + "|".join(f" {cell} " if cell or not narrow else " " for cell in cells) + "|"

    head = list(head)
    rule = "|" + "|".join(["---" if narrow else " --- "] * len(head)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def table(columns: Columns, rows: Rows) -> str:
    """One line per row."""
    lines = [[row[cell] if isinstance(cell, str) else cell(row) for cell in columns.values()] for row in rows]
    return markdown_table(columns, lines)


def spread(mean: float, sd: float) -> str:
    return f"{mean:.1f} ± {sd:.1f}"


def mean_sd(row: Row) -> str:
    return spread(float(row["mean"]), float(row["sd"]))


def worst(row: Row) -> str:
    """The mean return of the worst network; of one network, or of a row that has none yet, nothing."""
    return f"{float(row['worst']):.1f}" if row["worst"] and int(row["learners"]) > 1 else "–"


def published(row: Row) -> str:
    return row.get("published") or row.get("paper") or "–"


def millions(row: Row) -> str:
    return f"{int(row['env_steps']) / 1e6:.1f} M" if row["env_steps"] else "–"


def minutes(row: Row) -> str:
    return f"{float(row['seconds']) / 60:.1f}" if row["seconds"] else "–"


def groups(rows: Rows, *names: str) -> dict[tuple[str, ...], Rows]:
    """Rows that agree in some columns, in the order of their first."""
    found: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


# Cart-pole.

CARTPOLE_SETS = {
    "lambda": "Distilled for Λ, k_min examples",
    "errors": "The same with the published code's errors (`--published-errors`)",
    "below": "Fewer than k_min examples, distilled for Λ",
    "robust": "Distilled for random widths, depths and initialisers (two steps, see above)",
    "gradient": "The same with one gradient step",
    "steps": "The same with eight gradient steps",
}


def cartpole_tables(page: Page, rows: Rows, results: Path) -> list[str]:
    sets = {name: [row for row in rows if row["set"] == name] for name in CARTPOLE_SETS}
    return [f"### {title}\n\n{cartpole_table(sets[name])}" for name, title in CARTPOLE_SETS.items()]


def cartpole_table(rows: Rows) -> str:
    """Ours (± standard deviation over learners) above the paper's, per task and number of examples."""
    lines = []
    for (dimensions, *rest), found in groups(rows, "dimensions", "examples", "distillation_seed").items():
        cells = {row["distribution"]: row for row in found}
        lines.append([f"{dimensions}D", *rest, "floppy", *(mean_sd(cells[name]) for name in DISTRIBUTIONS)])
        if any(row["paper"] for row in found):
            lines.append(["", "", "", "paper", *(published(cells[name]) for name in DISTRIBUTIONS)])
    return markdown_table(["task", "k", "seed", "", *DISTRIBUTIONS], lines, narrow=True)


def cartpole_summary(rows: Rows) -> str:
    """The datasets distilled for Λ, evaluated under Λ."""
    shown = [row for row in rows if row["set"] == row["distribution"] == "lambda"]
    lines = [[f"{row['dimensions']}D", row["examples"], mean_sd(row), row["paper"]] for row in shown]
    return markdown_table(["cart-pole", "examples", "floppy", "paper"], lines, narrow=True)


# HaDES.

HADES: Columns = {
    "task": "task",
    "k": "examples",
    "method": lambda row: {"f": "HaDES-F", "r": "HaDES-R", "ppmo": "PPMO"}[row["set"]],
    "seed": "distillation_seed",
    "learners": lambda row: f"width {row['width']}" + (", its own draw" if row["own_draw"] == "True" else ""),
    "mean return": mean_sd,
    "published": published,
    "outer steps": "outer_steps",
    "env steps": millions,
    "minutes": minutes,
}


def hades_tables(page: Page, rows: Rows, results: Path) -> list[str]:
    fresh = [row for row in rows if row["set"] != "f" and row["own_draw"] == "False"]
    tasks = dict.fromkeys(run.task for run in page.runs if run.label == "f")
    compared = [row for task in tasks for row in rows if (row["task"], row["width"]) == (task, "64")]
    return [
        f"### Fresh learners\n\n{table(HADES, fresh)}",
        f"### HaDES-F against HaDES-R\n\n{table(HADES, compared)}",
    ]


def hades_summary(rows: Rows) -> str:
    """What fresh learners of the searched width reach."""
    names = ("set", "width", "own_draw", "distillation_seed")
    lines = [
        [row["task"], row["examples"], mean_sd(row), f"{int(row['env_steps']) / 1e6:.0f} M"]
        for row in rows
        if tuple(row[name] for name in names) == ("r", "64", "False", "0")
    ]
    return markdown_table(["task", "examples", "mean return", "environment steps"], lines)


# Beyond cart-pole, by suite.

PPMO: Columns = {
    "task": lambda row: row["task"].partition("/")[2],
    "method": "method",
    "k": "examples",
    "encoder": "encoder_layers",
    "seed": "distillation_seed",
    "mean return": mean_sd,
    "worst network": worst,
    "random": lambda row: f"{float(row['random']):.1f}",
    "published": published,
    "env steps": millions,
    "minutes": minutes,
}


def ppmo_tables(page: Page, rows: Rows, results: Path) -> list[str]:
    curves = page.rows(results, "-curves")
    return [table(PPMO, rows), *([f"### Curves\n\n{table(GAME_CURVES, curves)}"] if curves else [])]


def quarters(name: str) -> Callable[[Row], str]:
    """What makes the text of a curve's quarters."""
    return lambda row: ", ".join(f"{float(row[key]):.1f}" if row[key] else "–" for key in row if key.startswith(name))


GAME_CURVES: Columns = {
    "run": "run",
    "env steps": lambda row: f"{int(row['env_steps']) / 1e6:.2f} M",
    "training return, by quarter of the run": quarters("episode_return"),
    "score of fresh learners, by quarter": quarters("selection_score"),
}


def ppmo_summary(rows: Rows) -> str:
    """What fresh learners reach, over all networks of all seeds of a distillation."""
    own = [row for row in rows if row["method"] in OWN]
    lines = []
    for (task, method, *sizes), seeds in groups(own, "task", "method", "examples", "encoder_layers").items():
        means, sds, steps = (np.array([float(row[name]) for row in seeds]) for name in ("mean", "sd", "env_steps"))
        score = spread(means.mean(), np.sqrt(np.mean(sds**2) + means.var()))
        random = f"{float(seeds[0]['random']):.1f}"
        lines.append([task + OWN[method], *sizes, str(len(seeds)), score, random, f"{steps.mean() / 1e6:.1f} M"])
    return markdown_table(["task", "examples", "encoder", "seeds", "mean return", "random", "environment steps"], lines)


# Classic control.

CLASSIC: Columns = {name: cell for name, cell in PPMO.items() if name not in ("encoder", "worst network", "published")}


def classic_tables(page: Page, rows: Rows, results: Path) -> list[str]:
    return [table(CLASSIC, rows)]


def classic_summary(rows: Rows) -> str:
    """What fresh learners reach by the best method, beside plain PPO."""
    lines = []
    for (task,), found in groups(rows, "task").items():
        means = {way: fmean(float(row["mean"]) for row in own) for (way,), own in groups(found, "method").items()}
        ppo = means.pop("PPO", None)
        best = max(means, key=lambda way: means[way])
        own = [row for row in found if row["method"] == best]
        figures = [means[best], float(own[0]["random"]), ppo]
        texts = ["–" if figure is None else f"{figure:.1f}" for figure in figures]
        lines.append([task, best, own[0]["examples"], str(len(own)), *texts])
    return markdown_table(["task", "method", "examples", "seeds", "mean return", "random", "PPO"], lines)


# Images.


def image_tables(page: Page, rows: Rows, results: Path) -> list[str]:
    draw_examples([run for run in page.runs if run.kind == "distill" and run.seed == 0], results)
    return [
        image_table(page, rows),
        f"### Over three seeds\n\n{seeds_table(rows)}",
        f"### Curves\n\n{image_curves(page.rows(results, '-curves'))}",
    ]


def image_table(page: Page, rows: Rows) -> str:
    """One line per dataset, its accuracies by network."""
    networks = list(page.networks.values())
    lines = []
    for run, found in groups(rows, "task", "method", "distillation_seed").items():
        by_network = {row["network"]: mean_sd(row) for row in found}
        first = found[0]
        about = [published(first), first["examples"], first["floats"], first["outer_steps"] or "–", minutes(first)]
        lines.append([*run, *(by_network.get(network, "–") for network in networks), *about])
    about = ["paper", "examples", "floats", "outer steps", "minutes"]
    return markdown_table(["images", "method", "seed", *networks, *about], lines)


def seeds_table(rows: Rows) -> str:
    """Mean and standard deviation over seeds of a dataset's mean accuracy with its own network."""
    lines = []
    for which, found in groups([row for row in rows if row["network"] == "own"], "task", "method").items():
        means = np.array([float(row["mean"]) for row in found])
        score = spread(means.mean(), means.std(ddof=1)) if len(means) > 1 else f"{means.mean():.1f}"
        lines.append([*which, str(len(means)), score, published(found[0])])
    return markdown_table(["images", "method", "seeds", "test accuracy, %", "HaDES paper"], lines)


def image_curves(rows: Rows) -> str:
    """One line per run: held-out accuracy after eighths of the run."""
    lines = []
    for (run,), found in groups(rows, "run").items():
        chosen = [found[place] for place in sorted({round(part * (len(found) - 1) / 7) for part in range(8)})]
        lines.append([run, ", ".join(f"{row['outer_step']}: {float(row['accuracy']):.1f}" for row in chosen)])
    return markdown_table(["run", "held-out accuracy by outer step"], lines)


def draw_examples(runs: list[Run], results: Path) -> None:
    """The examples of some datasets, a row each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    paths = {run: results / run.dataset.relative_to("docs/results") for run in runs}
    shown = [run for run in runs if paths[run].exists()]
    figure, axes = pyplot.subplots(len(shown), 10, figsize=(10, 1.2 * len(shown)), squeeze=False)
    for row, run in zip(axes, shown, strict=True):
        images = load(paths[run]).observations[:10, ..., 0]
        for place, image in zip(row, images, strict=True):
            place.imshow(image, cmap="gray", vmin=np.quantile(images, 0.01), vmax=np.quantile(images, 0.99))
            place.set_xticks([])
            place.set_yticks([])
        row[0].set_ylabel(f"{run.task}\n{run.label}", fontsize=7)
    figure.tight_layout()
    figure.savefig(results / "images" / "examples.png", dpi=80, metadata={"Software": None})


# The papers' own datasets.


def published_tables(page: Page, rows: Rows, results: Path) -> list[str]:
    fixed = {run.name for run in page.runs if run.label == "HaDES-F"}
    columns: Columns = {
        "published file": "file",
        "learners": lambda row: (
            "its own initialisation" if row["file"] in fixed and row["distribution"] == "card" else "fresh, width 512"
        ),
        "networks x episodes": lambda row: f"{row['learners']} x {row['episodes']}",
        "mean return": lambda row: f"{float(row['mean']):.4g} ± {float(row['sd']):.3g}",
        "published": lambda row: f"{float(row['published']):.4g}",
        "difference": lambda row: f"{100 * (float(row['mean']) / float(row['published']) - 1):+.1f} %",
        "options": lambda row: f"`{row['options']}`",
    }
    return [table(columns, rows)]


# Studies.


def study_tables(page: Page, rows: Rows, results: Path) -> list[str]:
    """Figures, summaries and commands of a page's studies."""
    places = {run: Path("studies") / f"{run.page}-{run.name}" for run in page.runs}
    return [section(run, place, results) for run, place in places.items() if (results / place / ROWS_NAME).exists()]


def section(run: Run, place: Path, results: Path) -> str:
    """One study on its page."""
    summary = draw_study(results / place)
    figure = f"![{read_study(results / place).name}]({place}/figure.png)"
    links = f"[rows]({place}/rows.csv), [summary]({place}/summary.json)"
    asked = json.loads((results / place / STUDY_NAME).read_text())
    settings = ", ".join(
        f"{name.replace('_', ' ')} {text(value)}"
        for name, value in asked.items()
        if name not in ("study", "command", "dataset", "datasets", "files") and value not in ("", None, [])
    )
    commands = "\n".join(run.commands)
    parts = [f"### {run.name}", figure, *summary_tables(summary), f"Measured with {settings}.", links]
    return "\n\n".join([*parts, f"```text\n{commands}\n```"])


def summary_tables(summary: Any, name: str = "") -> list[str]:
    """A summary as tables: one for each list of entries, and one for the figures beside them."""
    if isinstance(summary, dict) and all(isinstance(entry, dict) for entry in summary.values()):
        summary = [{"": key} | entry for key, entry in summary.items()]
    if isinstance(summary, list):
        rows = [flat(entry) for entry in summary]
        head = list(dict.fromkeys(key for row in rows for key in row))
        made = markdown_table(head, [[text(row.get(key, ""), key) for key in head] for row in rows])
        return [f"{name}:\n\n{made}" if name else made]
    lists = {key: value for key, value in summary.items() if isinstance(value, list) and is_table(value)}
    rest = flat({key: value for key, value in summary.items() if key not in lists})
    plain = [markdown_table(["", ""], [[key, text(value, key)] for key, value in rest.items()])] if rest else []
    return plain + [made for key, value in lists.items() for made in summary_tables(value, key.replace("_", " "))]


def is_table(value: list[Any]) -> bool:
    """Whether a list has entries with names."""
    return bool(value) and isinstance(value[0], dict)


def flat(entry: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """An entry whose inner entries have become columns of its own."""
    found: dict[str, Any] = {}
    for key, value in entry.items():
        name = prefix + key.replace("_", " ")
        found |= flat(value, f"{name}: ") if isinstance(value, dict) else {name: value}
    return found


def text(value: Any, name: str = "") -> str:
    """A figure in a table; only an interval has a "to"."""
    if isinstance(value, dict):
        return ": ".join(map(text, value.values()))
    if isinstance(value, list):
        between = " to " if name.endswith("interval") else "; " if is_table(value) else ", "
        return between.join(map(text, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "–" if value is None else str(value)


# All scores of both papers.

FAMILIES = {
    "ppmo-table1": "Cart-pole (PPMO, Table 1)",
    "hades-table1": "Images (HaDES, Table 1)",
    "hades-table2": "Brax (HaDES)",
    "hades-table3": "MinAtar (HaDES)",
    "ppmo-table4": "MuJoCo (PPMO, Table 4)",
    "ppmo-table2": "Atari (PPMO, Table 2)",
}
PAPER_HEAD = ("score", "k", "published", "ours", "interval", "networks", "seeds", "taught", "env steps", "minutes")


README_CELLS = {
    "ppmo-table1/1d-k2": "CartPole",
    "ppmo-table1/5d-k6": "cart-pole in five dimensions",
    "hades-table1/mnist-hades": "MNIST, accuracy in %",
    "hades-table1/fashion-mnist-hades": "Fashion-MNIST, accuracy in %",
    "hades-table3/breakout": "MinAtar Breakout",
    "hades-table3/space-invaders": "MinAtar Space Invaders",
    "hades-table3/asterix": "MinAtar Asterix",
    "hades-table3/freeway": "MinAtar Freeway",
    "hades-table2/hopper": "Brax hopper",
    "hades-table2/inverted-double-pendulum": "Brax inverted double pendulum",
    "ppmo-table4/Hopper-v4": "MuJoCo Hopper-v4",
    "ppmo-table4/HalfCheetah-v4": "MuJoCo HalfCheetah-v4",
    "ppmo-table4/Walker2d-v4": "MuJoCo Walker2d-v4",
    "ppmo-table2/centipede-l0": "Atari Centipede",
    "ppmo-table2/pong-l4": "Atari Pong, four layers stored",
}
"""Scores of every family, reached and not, and what the README calls them."""


def papers_tables(found: Experiments, results: Path) -> list[str]:
    """How many published scores are reached, by family, and all answers to them."""
    known = answers(found, results)
    parts = []
    for prefix, title in FAMILIES.items():
        lines = [
            line
            for name, cell in found.cells.items()
            if name.startswith(f"{prefix}/")
            for line in papers_lines(cell, known[name])
        ]
        parts.append(f"### {title}\n\n{markdown_table(PAPER_HEAD, lines, narrow=True)}")
    lines = [line for name, cell in found.further.items() for line in papers_lines(cell, known[name])]
    parts.append(f"### Further scores (HaDES)\n\n{markdown_table(PAPER_HEAD, lines, narrow=True)}")
    lines = [line for name, cell in found.of_learners.items() for line in papers_lines(cell, known[name])]
    title = "Cart-pole, one dataset for the learners of all six columns (PPMO, Table 1)"
    parts.append(f"### {title}\n\n{markdown_table(PAPER_HEAD, lines, narrow=True)}")
    return [papers_counts(found, results), *parts]


def papers_counts(found: Experiments, results: Path) -> str:
    """How many published scores are reached, by family."""
    counts = reached_counts(found, results)
    total = ["all", *(sum(line[column] for line in counts.values()) for column in range(3))]
    head = ["", "at or above the published score", "of these by reward alone", "scores"]
    return markdown_table(head, [list(map(str, line)) for line in [*([k, *v] for k, v in counts.items()), total]])


def reached_counts(found: Experiments, results: Path) -> dict[str, tuple[int, int, int]]:
    """By family: scores that are reached, those that are by reward alone, and how many there are."""
    known, counts = answers(found, results), {}
    for prefix, title in FAMILIES.items():
        cells = {name: known[name] for name in found.cells if name.startswith(f"{prefix}/")}
        alone = {name: [answer for answer in each if not answer.runs[0].taught] for name, each in cells.items()}
        counts[title] = (count_reached(cells), count_reached(alone), len(cells))
    return counts


def papers_readme(found: Experiments, results: Path) -> str:
    """Some scores beside the papers', by reward alone and taught, and how many there are in all."""
    known, lines = answers(found, results), []
    for name, title in README_CELLS.items():
        cell = found.cells[name]
        ours = {answer.runs[0].taught: bold(f"{answer.mean:,.1f}", answer.is_reached) for answer in known[name]}
        examples = str(known[name][0].runs[0].examples)
        lines.append([title, examples, ours.get(False, "–"), ours.get(True, ""), f"{cell.published:,}"])
    reached, alone, cells = (sum(column) for column in zip(*reached_counts(found, results).values(), strict=True))
    said = f"Of all {cells} published scores {reached} are reached or passed, {alone} of these by reward alone."
    return f"{markdown_table(['task', 'examples', 'floppy', 'taught', 'paper'], lines)}\n\n{said}"


def bold(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def papers_lines(cell: Cell, found: list[Answer]) -> list[list[str]]:
    """A line per answer; one of dashes where there is none."""
    head = [cell.id.partition("/")[2], str(cell.examples), f"{cell.published:,}"]
    return [papers_line(head[0], answer.as_json()) for answer in found] or [[*head, *["–"] * 7]]


def papers_line(name: str, row: dict[str, Any]) -> list[str]:
    """An answer; it is in bold where it reaches the published score."""
    ours, (low, high) = f"{row['mean']:,.1f}", row["interval"]
    facts = {column: str(row[column] or "") for column in ("env_steps", "seconds")}
    return [
        name,
        str(row["examples"]),
        f"{row['published']:,}",
        bold(ours, row["reached"]),
        f"{low:,.1f} to {high:,.1f}",
        str(row["learners"]),
        str(len(row["seeds"])),
        "yes" if row["taught"] else "",
        millions({"env_steps": facts["env_steps"] and str(int(float(facts["env_steps"])))}),
        minutes({"seconds": facts["seconds"]}),
    ]


TABLES: dict[str, Callable[[Page, Rows, Path], list[str]]] = {
    "cartpole": cartpole_tables,
    "hades": hades_tables,
    "ppmo": ppmo_tables,
    "classic": classic_tables,
    "images": image_tables,
    "published": published_tables,
    "studies": study_tables,
}
"""What stands below the mark on a page, by the kind of its tables, from its rows and the folder of results."""

SUMMARY_TABLES: dict[str, Callable[[Rows], str]] = {
    "cartpole": cartpole_summary,
    "hades": hades_summary,
    "ppmo": ppmo_summary,
    "classic": classic_summary,
    "images": lambda rows: seeds_table([row for row in rows if row["method"] != "published"]),
}
"""The table of all pages of a kind, on the page that sums up the results."""
