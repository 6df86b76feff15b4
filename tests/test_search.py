"""The study of architecture search."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from probes import hand_dataset
from tiny_runs import use_tiny_runs

from floppy.dataset import load, save
from floppy.errors import FloppyError
from floppy.evaluation import score as score_module
from floppy.learner.distribution import parse_distribution
from floppy.studies import run_study
from floppy.studies import search as module
from floppy.studies.base import Row
from floppy.studies.rankings import between, reliability
from floppy.studies.search import SPACE, Search, count_weights, read_space
from floppy.teach.codec import unpack

pytestmark = pytest.mark.usefixtures("compiled_once")

ARCHITECTURES = [f"width=4:depth=1:initialiser={name}" for name in ("xavier", "xavier1", "lecun")]
"""Alike in shape: one program trains them all."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dataset") / "x.safetensors"
    save(hand_dataset(), path)
    return path


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.txt"
    path.write_text("\n".join(ARCHITECTURES))
    return path


@pytest.fixture(scope="module")
def study(dataset: Path, space: Path) -> Search:
    return Search(dataset, space=space, env_steps=1, seeds=(0,), learners=2, episodes=2, rates=(1.0, 0.1))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_module, "BOOTSTRAP_RESAMPLES", 100)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The cells that a search measures; a stub invents their rows."""
    cells: list[Row] = []

    def measure(self: Search, cell: Row, folder: Path) -> list[Row]:
        cells.append(cell)
        row = {"weights": 30, "score": float(len(cells)), "seconds": 1.0}
        return [row | {"rate": rate} for rate in self.rates] if cell["way"] == "distilled" else [row | {"final": 9.0}]

    monkeypatch.setattr(Search, "measure", measure)
    return cells


def table(
    distilled: list[float], ppo: list[float], weights: list[int], *, short: Sequence[float] = (), seeds: int = 1
) -> list[Row]:
    """Rows of architectures a, b, c and so on, the same for every seed; PPO trains the first of them."""
    rows: list[Row] = []
    for way, scores in (("distilled", distilled), ("short", short), ("ppo", ppo)):
        for (place, score), seed in itertools.product(enumerate(scores), range(seeds)):
            row: Row = {"way": way, "architecture": "abcdefghi"[place], "seed": seed, "score": score, "seconds": 1.0}
            row |= {"weights": weights[place]} | ({"rate": 1.0} if way == "distilled" else {"final": -score})
            rows.append(row)
    return rows


def predictors(summary: Row) -> dict[str, Row]:
    """The entries of a summary's predictors by their names."""
    return {entry["predictor"]: entry for entry in summary["predictors"]}


@pytest.mark.slow
def test_an_architecture_is_scored_every_way(study: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_runs(monkeypatch)
    cloned = study.measure({"way": "distilled", "architecture": ARCHITECTURES[0], "seed": 0}, tmp_path / "distilled")
    trained = study.measure({"way": "ppo", "architecture": ARCHITECTURES[0], "seed": 0}, tmp_path / "ppo")
    short = study.measure({"way": "short", "architecture": ARCHITECTURES[0], "seed": 2**31}, tmp_path / "short")
    assert [row["rate"] for row in cloned] == [1.0, 0.1]
    assert len({row["score"] for row in cloned}) == 2  # other rates make other policies
    for (row,) in (trained, short):
        assert row["score"] == row["final"]  # one outer step has one evaluation
    for row in [*cloned, *trained, *short]:
        assert 8 <= row["score"] <= 500  # no cart-pole falls in fewer steps
        assert row["weights"] == 4 * 4 + 4 + 4 * 2 + 2
        assert row["seconds"] > 0


@pytest.mark.slow
def test_a_search_is_kept_and_goes_on_with_the_cells_that_it_lacks(
    study: Search, tmp_path: Path, measured: list[Row]
) -> None:
    rows = run_study(study, tmp_path)
    wanted = [(way, name) for way in ("distilled", "short", "ppo") for name in ARCHITECTURES]
    assert [(cell["way"], cell["architecture"]) for cell in measured] == wanted
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["architectures"], summary["trained"], summary["top"]) == (3, 3, 3)
    assert predictors(summary)["distilled"]["spearman"]["value"] == pytest.approx(1.0)
    assert summary["seconds"] == {"distilled": 6.0, "short": 3.0, "ppo": 3.0}
    assert (tmp_path / "figure.png").exists()
    table = tmp_path / "rows.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    measured.clear()
    assert run_study(study, tmp_path, resume=True)[:-1] == rows[:-1]
    assert measured == [{"way": "ppo", "architecture": ARCHITECTURES[-1], "seed": 0}]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations of runs, none of which is made."""
    configs: list[Any] = []

    def stop(wanted: Any, folder: Path) -> None:
        configs.append(wanted.config)
        raise FloppyError("stopped.")

    monkeypatch.setattr(module, "try_run", stop)
    return configs


def test_a_run_of_ppo_has_the_steps_that_were_asked_for(dataset: Path, asked: list[Any]) -> None:
    study = Search(dataset, env_steps=100_000, learners=3, episodes=5)
    with pytest.raises(FloppyError, match="stopped"):
        study.measure({"way": "ppo", "architecture": "depth=3", "seed": 7}, Path("nowhere"))
    (config,) = asked
    per_step = config.outer.learners * config.outer.environments * config.outer.horizon
    assert (config.outer_steps - 1) * per_step < 100_000 <= config.outer_steps * per_step
    assert (config.encoder_layers, config.examples, config.seed, config.distribution) == (4, 0, 7, "depth=3")
    assert (config.selection_episodes, config.early_stop) == (15, False)
    assert config.outer_steps / config.evaluate_every <= 10


def test_a_short_run_has_a_share_of_the_steps_and_one_evaluation(dataset: Path, asked: list[Any]) -> None:
    study = Search(dataset, env_steps=1_000_000, short=0.25, learners=3, episodes=5)
    for way in ("short", "ppo"):
        with pytest.raises(FloppyError, match="stopped"):
            study.measure({"way": way, "architecture": "depth=3", "seed": 7}, Path("nowhere"))
    short, long = asked
    per_step = short.outer.learners * short.outer.environments * short.outer.horizon
    assert (short.outer_steps - 1) * per_step < 250_000 <= short.outer_steps * per_step
    assert short.evaluate_every == short.outer_steps
    assert dataclasses.replace(short, outer_steps=long.outer_steps, evaluate_every=long.evaluate_every) == long


def test_short_runs_have_seeds_of_their_own(dataset: Path) -> None:
    cells = Search(dataset, seeds=(3, 2**31 + 4)).cells()
    seeds = {way: {cell["seed"] for cell in cells if cell["way"] == way} for way in ("distilled", "short", "ppo")}
    assert seeds == {"distilled": {3, 2**31 + 4}, "short": {3 + 2**31, 4}, "ppo": {3, 2**31 + 4}}
    assert not any(cell["way"] == "short" for cell in Search(dataset, short=0.0, seeds=(3, 2**31 + 3)).cells())


def test_rankings_that_agree_and_rankings_that_do_not(dataset: Path) -> None:
    study = Search(dataset)
    scores = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    same = study.summary(table(scores, [10 * score for score in scores], list(range(8, 0, -1))))
    found = predictors(same)
    assert list(found) == ["distilled", "weights"]
    for name in ("spearman", "kendall"):
        assert [found["distilled"][name]["value"], *found["distilled"][name]["interval"]] == pytest.approx([1.0] * 3)
    assert found["weights"]["spearman"]["value"] == same["spearman_with_final"]["value"] == pytest.approx(-1.0)
    assert (found["distilled"]["top_recall"], found["weights"]["top_recall"]) == (1.0, 2 / 5)
    assert same["top_recall_by_chance"] == 5 / 8
    assert same["ranking"][0] == {"architecture": "h", "weights": 1, "distilled": 8.0, "ppo": 80.0, "final": -80.0}
    reverse = predictors(study.summary(table(scores, scores[::-1], [1] * 8)))
    assert reverse["distilled"]["spearman"]["value"] == pytest.approx(-1.0)
    assert reverse["distilled"]["top_recall"] == 2 / 5
    assert reverse["weights"]["spearman"] == {"value": None, "interval": None}  # they are all of one size
    assert reverse["distilled"]["spearman_given_weights"] == pytest.approx(-1.0)


def test_a_short_training_is_compared_with_the_dataset(dataset: Path) -> None:
    ppo = [1.0, 2, 3, 4, 5, 6, 7, 8]
    short = [2.0, 1, 3, 4, 5, 6, 7, 8]
    summary = Search(dataset).summary(table([*ppo[:6], 8.0, 7.0, 0.0], ppo, [*range(8, -1, -1)], short=short, seeds=3))
    found = predictors(summary)
    assert list(found) == ["distilled", "weights", "short"]
    assert found["short"]["spearman"]["value"] == pytest.approx(1 - 12 / 504)  # Spearman: 1 - 6 Σ d² / (n³ - n)
    assert found["short"]["kendall"]["value"] == pytest.approx(1 - 2 / 28)  # one of 28 pairs is in the other order
    assert found["short"]["top_recall"] == 1.0
    # Of the nine architectures one is not trained, and does not count.
    assert [found[name]["seconds"] for name in found] == [24.0, 0.0, 24.0]
    assert "spearman_given_weights" not in found["weights"]
    low, high = summary["spearman_distilled_less_short"]["interval"]
    assert summary["spearman_distilled_less_short"]["value"] == pytest.approx(0.0)
    assert low < 0 < high
    assert {entry["architecture"]: entry["short"] for entry in summary["ranking"]} == dict(
        zip("abcdefghi", [*short, None], strict=True)
    )


def test_a_better_ranking_than_by_a_short_training_is_said_to_be(dataset: Path) -> None:
    ppo = [1.0, 2, 3, 4, 5, 6, 7, 8]
    found = Search(dataset).summary(table(ppo, ppo, [1] * 8, short=ppo[::-1]))["spearman_distilled_less_short"]
    assert [found["value"], *found["interval"]] == pytest.approx([2.0] * 3)


def test_more_seeds_cost_more_and_agree_more(dataset: Path) -> None:
    """Each seed alone has one neighbouring pair in the wrong order, on average they are in the right one."""
    rows = table([1.0, 2, 3], [1.0, 2, 3], [1] * 3, short=[1.0, 2, 3], seeds=2)
    scores = {("a", 0): 2.0, ("b", 0): 1.0, ("c", 0): 9.0, ("a", 1): 1.0, ("b", 1): 9.0, ("c", 1): 8.0}
    rows = [
        row | {"score": scores[row["architecture"], row["seed"]], "seconds": 5.0 - row["seed"]}
        if row["way"] == "short"
        else row
        for row in rows
    ]
    summary = Search(dataset).summary(rows)
    assert [entry for entry in summary["by_seeds"] if entry["predictor"] == "short"] == [
        {"predictor": "short", "seeds": 1, "seconds": 15.0, "spearman": pytest.approx(0.5)},
        {"predictor": "short", "seeds": 2, "seconds": 27.0, "spearman": pytest.approx(1.0)},
    ]
    assert summary["spearman_between_seeds"]["short"] == pytest.approx(-0.5)
    assert summary["reliability"] == {"distilled": pytest.approx(1), "short": 0.0, "ppo": pytest.approx(1)}


def test_a_short_training_of_some_alone_is_no_predictor(dataset: Path) -> None:
    summary = Search(dataset).summary(table([1.0, 2, 3], [1.0, 2, 3], [1] * 3, short=[1.0, 2]))
    assert list(predictors(summary)) == ["distilled", "weights"]
    assert "spearman_distilled_less_short" not in summary


def test_equals_do_not_count_as_recalled(dataset: Path) -> None:
    """PPO solves all: its top is any, and the dataset's five best must not be taken for it."""
    study = Search(dataset)
    summary = study.summary(table([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [500.0] * 8, [1] * 8))
    assert predictors(summary)["distilled"]["top_recall"] < 1.0


def test_scores_that_are_all_alike_have_no_correlation(dataset: Path) -> None:
    summary = Search(dataset).summary(table([1.0, 2.0, 3.0, 4.0], [500.0] * 4, [1, 2, 3, 4], short=[1.0] * 4, seeds=2))
    nothing = {"value": None, "interval": None}
    for entry in summary["predictors"]:
        assert [entry[name] for name in ("spearman", "kendall")] == [nothing] * 2
    assert predictors(summary)["distilled"]["spearman_given_weights"] is None
    assert summary["spearman_distilled_less_short"] == nothing
    assert [entry["spearman"] for entry in summary["by_seeds"]] == [None] * 4
    assert summary["spearman_by_rate"] == {"1.0": None}
    assert summary["spearman_between_seeds"] == {"distilled": pytest.approx(1.0), "short": None, "ppo": None}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_middling_agreement_has_an_interval_around_it(dataset: Path) -> None:
    summary = Search(dataset).summary(table([1.0, 2, 3, 4, 5, 6, 7, 8], [2.0, 1, 4, 3, 8, 5, 6, 7], [1] * 8))
    found = predictors(summary)["distilled"]
    low, high = found["spearman"]["interval"]
    assert -1 <= low < found["spearman"]["value"] < high <= 1
    assert found["kendall"]["value"] < found["spearman"]["value"]


def test_those_that_ppo_does_not_train_do_not_count(dataset: Path) -> None:
    summary = Search(dataset).summary(table([1.0, 2, 3, 4, 0], [1.0, 2, 3, 4], [1] * 5))
    assert (summary["architectures"], summary["trained"], summary["top"]) == (5, 4, 4)
    assert predictors(summary)["distilled"]["spearman"]["value"] == pytest.approx(1.0)
    assert summary["ranking"][-1]["ppo"] is None


def test_an_architecture_counts_with_its_best_rate(dataset: Path) -> None:
    at_one = table([1.0, 5, 3], [1.0, 2, 3], [1] * 3)
    at_ten = [row | {"rate": 10.0, "score": score} for row, score in zip(at_one, [0.0, 2, 9], strict=False)]
    summary = Search(dataset, rates=(1.0, 10.0)).summary(at_one + at_ten)
    assert {entry["architecture"]: entry["distilled"] for entry in summary["ranking"]} == {"a": 1, "b": 5, "c": 9}
    assert predictors(summary)["distilled"]["spearman"]["value"] == pytest.approx(1.0)
    assert summary["spearman_by_rate"] == {"1.0": pytest.approx(0.5), "10.0": pytest.approx(1.0)}


def test_what_the_dataset_knows_beyond_the_number_of_weights(dataset: Path) -> None:
    ppo, weights = [1.0, 2, 3, 4, 5, 6], [1, 1, 2, 2, 3, 3]
    tables = [[float(size) for size in weights], [1.0, 6, 2, 5, 3, 4], [6.0, 1, 5, 2, 4, 3]]
    by_size, beyond, against = (
        predictors(Search(dataset).summary(table(distilled, ppo, weights)))["distilled"] for distilled in tables
    )
    assert by_size["spearman"]["value"] > 0.9
    assert by_size["spearman_given_weights"] == 0.0
    assert beyond["spearman_given_weights"] == pytest.approx(-against["spearman_given_weights"])
    assert beyond["spearman_given_weights"] > beyond["spearman"]["value"] > 0


def test_seeds_that_agree_among_themselves(dataset: Path) -> None:
    study = Search(dataset)
    assert study.summary(table([1.0, 2, 3], [1.0, 2, 3], [1] * 3))["spearman_between_seeds"]["ppo"] is None
    rows = table([1.0, 2, 3], [1.0, 2, 3], [1] * 3, seeds=2)
    assert study.summary(rows)["spearman_between_seeds"] == {"distilled": pytest.approx(1), "ppo": pytest.approx(1)}


def test_many_noisy_rankings_are_reliable_on_average() -> None:
    """Spearman and Brown: k rankings that correlate by r have a mean of reliability kr / (1 + (k - 1) r)."""
    swapped = np.array([[2.0, 1, 3, 4], [1.0, 3, 2, 4], [1.0, 2, 4, 3]])  # correlate by 0.4, 0.6 and 0.4
    single = (0.4 + 0.6 + 0.4) / 3
    assert between(swapped) == pytest.approx(single)
    assert reliability(swapped) == pytest.approx(3 * single / (1 + 2 * single))
    assert reliability(swapped[:1]) is None


def test_the_figure_has_a_point_per_trained_architecture(dataset: Path) -> None:
    figure = Figure()
    Search(dataset).draw(table([1.0, 2, 3, 4, 5], [4.0, 7, 6, 5], [10, 20, 30, 40, 50]), figure)
    (points,) = figure.axes[0].collections
    assert sorted(map(tuple, points.get_offsets())) == [(1, 3), (2, 2), (3, 1), (4, 4)]  # the best of each is first
    assert len(figure.axes) == 2  # the other one is the scale of colours


def test_a_short_training_has_a_panel_of_its_own(dataset: Path) -> None:
    figure = Figure()
    rows = table([1.0, 2, 3, 4, 5], [4.0, 7, 6, 5], [10, 20, 30, 40, 50], short=[1.0, 2, 4, 3])
    Search(dataset).draw(rows, figure)
    offsets = [sorted(map(tuple, axes.collections[0].get_offsets())) for axes in figure.axes[:2]]
    assert offsets == [[(1, 3), (2, 2), (3, 1), (4, 4)], [(1, 2), (2, 3), (3, 1), (4, 4)]]


def test_the_built_in_space_has_thirty_architectures_at_least() -> None:
    assert len(set(SPACE)) == len(SPACE) >= 30
    assert all(parse_distribution(architecture).is_fixed for architecture in SPACE)


def test_a_sample_is_drawn_from_the_whole_space(dataset: Path) -> None:
    cells = Search(dataset, trained=5, seeds=(3, 4)).cells()
    trained = [cell["architecture"] for cell in cells if cell["way"] == "ppo"][::2]
    assert len(set(trained)) == 5
    assert trained != list(SPACE[:5])
    assert [cell["architecture"] for cell in cells if cell["way"] == "short"][::2] == trained
    assert [cell["seed"] % 2**31 for cell in cells] == [3, 4] * (len(SPACE) + 5 + 5)


def test_a_space_is_read_from_lines_or_json(tmp_path: Path) -> None:
    lines, entries = tmp_path / "space.txt", tmp_path / "space.json"
    lines.write_text("# small ones\nwidth=4\n\n  depth=1 # a single hidden layer\n")
    entries.write_text('["width=4", "depth=1"]')
    assert read_space(lines) == read_space(entries) == ("width=4", "depth=1")


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("space.txt", "width=4\n\nwidth=x", "space.txt, line 3: .*'width=x'"),
        ("space.txt", "width=4\nrandom-width", "line 2 leaves width or depth to chance"),
        ("space.txt", "depth=1..2", "line 1 leaves width or depth to chance"),
        ("space.txt", "width=4\ndepth=1\nwidth=4", "line 3 is width=4 as is line 1"),
        ("space.json", '["width=4", 7]', "entry 2 must be .*, got 7"),
        ("space.json", '{"width": 4}', "must hold a JSON list of learner distributions"),
        ("space.json", "[", "cannot be read"),
        ("space.txt", "width=4\ndepth=1", "trained must be 3 to the space's 2 architectures, got 2"),
        ("space.txt", "", "trained must be 3 to the space's 0 architectures, got 0"),
        ("space.txt", "width=4\ndepth=1\nnetwork=minatar-cnn", "Network minatar-cnn needs observations"),
    ],
)
def test_a_space_that_cannot_be_is_refused(name: str, text: str, wanted: str, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FloppyError, match=wanted):
        Search(dataset, space=tmp_path / name).cells()


def test_architectures_of_equal_size_are_ranked(dataset: Path) -> None:
    cells = Search(dataset, weights=1000, architectures=4, seeds=(0,)).cells()
    ranked = [cell["architecture"] for cell in cells if cell["way"] == "distilled"]
    assert len(set(ranked)) == 4
    lesson = unpack(load(dataset))
    sizes = [count_weights(lesson.network(parse_distribution(architecture))) for architecture in ranked]
    assert sizes == pytest.approx([1000] * 4, rel=0.05)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"weights": 1000, "space": Path("x.txt")}, r"space \(x.txt\) and weights \(1000\) are two spaces: give one"),
        ({"weights": 1000, "architectures": 2}, "architectures must be at least 3, got 2"),
        ({"weights": 7}, "Only 0 designs come within 5% of 7 weights"),
        ({"weights": 10_000_001}, "weights must be at least 0 and at most 10,?000,?000, got 10,?000,?001"),
        ({"short": 1.5}, "short must be at least 0 and at most 1, got 1.5"),
        ({"short": -0.1}, "short must be at least 0 and at most 1, got -0.1"),
        ({"seeds": (1, 2**31 + 1)}, "seeds must not lie 2147483648 apart"),
        ({"trained": 2}, "trained must be 3 to the space's 32 architectures, got 2"),
        ({"trained": 33}, "trained must be 3 to the space's 32 architectures, got 33"),
        ({"trained": -1}, "trained must be at least 0, got -1"),
        ({"env_steps": 0}, "env_steps must be at least 1"),
        ({"learners": 0}, "learners must be at least 1"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"rates": (1.0, 0.0)}, "rates must be above 0, got 0.0"),
        ({"rates": ()}, "rates must have at least one value"),
        ({"seeds": ()}, "seeds must have at least one value"),
        ({"seeds": (-1,)}, "seeds must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], wanted: str, dataset: Path) -> None:
    with pytest.raises(FloppyError, match=wanted):
        Search(dataset, **options).cells()


def test_the_command_line_refuses_in_one_sentence(dataset: Path, refused: Refused) -> None:
    refused(["search", str(dataset), "--space", "nowhere.txt"], "nowhere.txt: There is no such file")
    refused(["search", str(dataset), "--space", "x.txt", "--weights", "9"], "weights (9) are two spaces: give one")


@pytest.mark.parametrize(("layers", "wanted"), [(1, "The dataset holds an encoder"), (3, "is a whole policy")])
def test_a_dataset_from_which_no_other_architecture_learns_is_refused(layers: int, wanted: str, tmp_path: Path) -> None:
    sizes = (4, 64, 64, 2)
    shapes = {f"{index}/kernel": sizes[index : index + 2] for index in range(layers)}
    encoder = {name: np.zeros(shape) for name, shape in shapes.items()}
    encoder |= {name.replace("kernel", "bias"): np.zeros(shape[1]) for name, shape in shapes.items()}
    examples = {"observations": np.zeros((0, 4)), "targets": np.zeros((0, 2))} if layers == 3 else {}
    save(
        hand_dataset({"encoder": {"layers": layers, "of": 3}}, encoder=encoder, **examples), tmp_path / "x.safetensors"
    )
    with pytest.raises(FloppyError, match=wanted):
        Search(tmp_path / "x.safetensors").cells()
