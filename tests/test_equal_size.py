"""Architectures of equal size."""

import pytest

from floppy.errors import FloppyError
from floppy.learner.distribution import parse_distribution
from floppy.learner.mlp import MAX_UNITS
from floppy.spaces import Discrete
from floppy.studies.equal_size import DEPTHS, TOLERANCE, designs, equal_size_space, nearest_width


def count(architecture: str) -> int:
    """Weights for four observed numbers and two actions, by the shapes of the layers."""
    shapes = parse_distribution(architecture).bind((4,), Discrete(2)).kernel_shapes
    return sum((rows + 1) * columns for rows, columns in shapes)


@pytest.mark.parametrize("weights", [500, 1000, 5000, 50_000])
def test_all_are_of_equal_size_and_differ_otherwise(weights: int) -> None:
    space = equal_size_space(count, weights, 36)
    assert len(set(space)) == 36
    assert [count(architecture) for architecture in space] == pytest.approx([weights] * 36, rel=TOLERANCE)
    learners = [parse_distribution(architecture) for architecture in space]
    assert {each.depth[0] for each in learners} == set(DEPTHS)
    for name, kinds in (("taper", 3), ("activation", 4), ("norm", 2), ("residual", 2), ("initialiser", 4)):
        assert len({getattr(each, name) for each in learners}) == kinds


def test_everybody_ranks_the_same_ones() -> None:
    assert equal_size_space(count, 1000, 36) == equal_size_space(count, 1000, 36)
    assert equal_size_space(count, 1000, 36)[:5] == equal_size_space(count, 1000, 5)


def test_designs_are_sensible() -> None:
    learners = [parse_distribution(f"width=16:depth={shape[0]}:taper={shape[1]}{rest}") for shape, rest in designs()]
    # Of one layer 4 x 2 x 4 kinds, of each other depth three tapers and residual connections.
    assert len(set(learners)) == len(learners) == 32 * (1 + 3 * 4)
    assert not any(each.residual or each.taper != 1 for each in learners if each.depth[0] == 1)


def test_no_layer_of_one_unit_is_normalised() -> None:
    space = [parse_distribution(each) for each in equal_size_space(count, 100, 100)]
    assert any(min(each.widths) == 1 for each in space)
    assert all(min(each.widths) > 1 for each in space if each.norm != "none")


def test_a_width_checked_by_hand() -> None:
    """One hidden layer of w units has 4w + w + 2w + 2 weights: 996 of 142, 1,003 of 143."""
    wanted = {"width=143:depth=1:activation=tanh:initialiser=xavier", "width=28:depth=2:activation=tanh:norm=layer"}
    space = equal_size_space(count, 1000, 200)
    assert {
        architecture.removesuffix(":initialiser=lecun") for architecture in space
    } >= wanted  # 28² + 8·28 + 2 = 1,010


@pytest.mark.parametrize(
    ("weights", "most", "wanted"), [(1, 100, 1), (7, 100, 3), (6, 100, 2), (9999, 100, 100), (9, 1, 1), (16, 100, 4)]
)
def test_the_nearest_width(weights: int, most: int, wanted: int) -> None:
    assert nearest_width(lambda width: width**2, weights, most) == wanted


def test_of_equally_near_widths_it_is_the_smaller() -> None:
    assert nearest_width(lambda width: 2 * width, 5, 100) == 2


def test_designs_that_cannot_be_so_large_are_passed_over() -> None:
    """A single hidden layer of `MAX_UNITS` has fewer weights than that, and more units are refused."""
    space = equal_size_space(count, 10 * MAX_UNITS, 36)
    assert not any(":depth=1" in architecture for architecture in space)


def test_too_few_designs_are_refused() -> None:
    with pytest.raises(FloppyError, match=r"Only 0 designs come within 5% of 7 weights, got architectures 36: give"):
        equal_size_space(count, 7, 36)
