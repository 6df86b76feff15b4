"""What the benchmarks count, by hand, and the page that they write. Nothing is timed here."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from floppy.run.stages import Stage

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import _measure  # noqa: E402
import bench  # noqa: E402
import cost  # noqa: E402
import published  # noqa: E402

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
PRODUCT = 2 * 3 * 5 * 7


def repeated(times: int, b: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, times, lambda _, total: total + jnp.sum(A @ b), jnp.zeros(()))


def until_large(b: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda total: total < 1e3, lambda total: total + jnp.sum(A @ b), jnp.zeros(()))


def one_of_two(b: jax.Array) -> jax.Array:
    return jax.lax.cond(b[0, 0] > 0, lambda: jnp.sum(A @ b), lambda: jnp.sum(A @ b @ b.T))


def convolution(b: jax.Array) -> jax.Array:
    """Of 2 images of 6 x 6 pixels in 3 channels, 3 x 3 windows, 4 channels: 4 x 4 places."""
    images, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4)) * b[0, 0]
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda b: A @ b, PRODUCT),
        (lambda b: jax.jit(lambda x: A @ x)(b), PRODUCT),
        (lambda b: jax.vmap(lambda row: row @ b)(A), PRODUCT),
        (lambda b: repeated(4, b), 4 * PRODUCT),
        (until_large, 10 * PRODUCT),
        (one_of_two, PRODUCT + 2 * 3 * 7 * 5),
        (convolution, 2 * (3 * 3 * 3) * (2 * 4 * 4 * 4)),
        (lambda b: b + 1, 0),
    ],
    ids=["product", "compiled", "batch", "loop", "loop of unknown length", "the longer branch", "convolution", "none"],
)
def test_operations_of_products_by_hand(function, wanted):
    assert _measure.product_flops(function, B, trips=10) == wanted


def test_a_gradient_takes_two_products_more_for_two_arguments():
    gradient = jax.grad(lambda a, b: jnp.sum(jnp.square(a @ b)), argnums=(0, 1))
    assert _measure.product_flops(gradient, A, B) == 3 * PRODUCT


def test_shares_of_a_floor():
    assert _measure.rate("play", 50.0, "steps", 200.0, "products").of_floor == 0.25
    assert _measure.duration("start", 4.0, 1.0, "products").of_floor == 0.25
    assert _measure.rate("play", 50.0, "steps").of_floor is None


def test_what_a_score_cost_or_what_was_reached_instead():
    reached = cost._told("hopper by taught", 1500.0, {"score": 1510.0, "seconds": 240.0, "env_steps": 1e6})
    assert [(row.what, row.value, row.unit) for row in reached] == [
        ("hopper by taught, to 1500", 240.0, "s"),
        ("hopper by taught, to 1500", 1e6, "environment steps"),
    ]
    (missed,) = cost._told("hopper by hades", 1500.0, {"score": 700.0, "seconds": 903.0, "env_steps": 1e6})
    assert (missed.what, missed.value) == ("hopper by hades, not 1500: best of 15 minutes", 700.0)
    (missed,) = cost._told("hopper by taught", 1500.0, {"score": None, "seconds": 903.0, "env_steps": 1e6})
    assert missed.what == "hopper by taught, not 1500: the teacher took all 15 minutes"


@dataclasses.dataclass(frozen=True)
class Stages:
    """Configurations that end as soon as they are asked for, one after the other."""

    outer_steps: int = 60
    evaluate_every: int = 10


def test_a_teachers_score_does_not_count_and_its_steps_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scores = {"teacher": [5000.0], "imitation": [900.0, 1600.0, 1700.0]}

    def distill(config: Stages, place: Path, progress: Any) -> None:
        assert config.evaluate_every == 2, "thirty evaluations at least"
        place.mkdir()
        log = place / "metrics.jsonl"
        for done, score in enumerate(scores[place.name], start=1):
            log.write_text("".join(f'{{"step": {n + 1}, "env_steps": 100}}\n' for n in range(done)))
            progress(done, 3, {"score": score})

    monkeypatch.setattr(cost, "distill", distill)
    stages = [Stage(name, lambda _: Stages()) for name in scores]  # type: ignore[arg-type, return-value]
    told = cost._through(stages, tmp_path, 1500.0, time.time(), 60.0)
    assert (told["score"], told["env_steps"]) == (1600.0, 300)


def test_published_programs_that_are_not_there_lose_no_figures(monkeypatch: pytest.MonkeyPatch):
    before = bench.FILE.read_bytes()
    for name in published.VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "argv", ["bench.py", "--only", "published"])
    with pytest.raises(SystemExit, match="PUBLISHED_PPMO must be the whole path of something that is there, got ''"):
        bench.main()
    assert bench.FILE.read_bytes() == before


LAPS = """
import sys
assert "--popsize 32" in " ".join(sys.argv)
for generation, seconds in enumerate((90.0, 50.0, 12.0, 13.0, 14.0, 17.0)):
    print(f"Gen: {generation}, Fitness: 1.00 +/- 0.10, Best: 2.00, Lap time: {seconds:.1f}s")
"""


def test_generations_of_the_published_program_that_compile_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PUBLISHED_PYTHON", sys.executable)
    (tmp_path / "policy_distillation").mkdir()
    (tmp_path / "policy_distillation" / "distill_brax.py").write_text(LAPS, encoding="utf-8")
    assert published.published_generation(tmp_path) == 14.0


def test_a_pair_of_programs_has_the_ratio_of_its_seconds():
    pairs = [(0.5, 0.0125), (0.5, 0.02), (0.5, 0.01)]
    assert [row.value for row in published.compared("PPMO", "outer steps/s", pairs)] == [2.0, 80.0, 40.0]


def test_the_page_says_what_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = tmp_path / "performance.md"
    page.write_text(bench.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(bench, "PAGE", page)
    told = json.loads(bench.FILE.read_text(encoding="utf-8"))
    assert set(bench.GROUPS) <= set(told["groups"]) <= set(bench.ALL)
    bench._write_page(told)
    assert page.read_text(encoding="utf-8") == (FOLDER.parent / "docs" / "performance.md").read_text(encoding="utf-8")
