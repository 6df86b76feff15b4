"""A checkpoint gives back every bit of a run's state, and refuses to be taken for another's."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from floppy.errors import FloppyError
from floppy.run.checkpoint import load_checkpoint, save_checkpoint


class State(NamedTuple):
    weights: Any
    step: jax.Array
    statistics: Any = None


def make_state(offset: float = 0.0) -> State:
    layers = ({"kernel": jnp.arange(6.0).reshape(2, 3) + offset, "bias": jnp.zeros((0,))}, {"kernel": jnp.ones((3, 0))})
    extremes = jnp.asarray([jnp.nan, jnp.inf, -0.0, 1e-45, 3.4e38], jnp.float32)
    tree = {"layers": layers, "flags": jnp.asarray([True, False]), "extremes": extremes}
    return State((tree, optax.adam(1e-3).init(tree["layers"])), jnp.asarray(2**31 - 1, jnp.int32))


def leaves(tree: Any) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(w), str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for w, leaf in found]


def refusal(like: Any, path: Path) -> str:
    with pytest.raises(FloppyError) as caught:
        load_checkpoint(like, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("of", ["arrays", "shapes"])
def test_every_bit_comes_back(tmp_path: Path, of: str) -> None:
    state = make_state()
    save_checkpoint(state, tmp_path / "new/state")
    like = make_state(5.0) if of == "arrays" else jax.eval_shape(make_state)
    loaded = load_checkpoint(like, tmp_path / "new/state")
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    assert leaves(loaded) == leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))


def test_the_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(make_state(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_new_checkpoint_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_checkpoint(make_state(), path)
    save_checkpoint(make_state(1.0), path)
    assert leaves(load_checkpoint(make_state(), path)) == leaves(make_state(1.0))
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    save_checkpoint(make_state(), path)

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(FloppyError, match="No space left"):
        patch.setattr("os.fsync", fail)
        save_checkpoint(make_state(1.0), path)
    assert leaves(load_checkpoint(make_state(), path)) == leaves(make_state())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "like",
    [
        make_state()._replace(step=jnp.zeros((), jnp.float32)),
        make_state()._replace(step=jnp.zeros((1,), jnp.int32)),
        make_state()._replace(statistics=jnp.zeros(3)),
        make_state()._replace(weights=()),
        {"weights": make_state().weights, "step": make_state().step},
    ],
    ids=["dtype", "shape", "more", "less", "names"],
)
def test_another_structure_is_refused(tmp_path: Path, like: Any) -> None:
    save_checkpoint(make_state(), tmp_path / "state")
    assert "of a run with another configuration, or of another version of floppy: go on" in refusal(
        like, tmp_path / "state"
    )


def test_no_name_stays_behind_where_both_checkpoints_are_one_file(tmp_path: Path) -> None:
    save_checkpoint(make_state(), tmp_path / "latest")
    (tmp_path / "previous").hardlink_to(tmp_path / "latest")
    save_checkpoint(make_state(1.0), tmp_path / "latest", previous=tmp_path / "previous")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "previous"]
    assert leaves(load_checkpoint(make_state(), tmp_path / "previous")) == leaves(make_state())


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "garbage", "truncated", "header"])
def test_a_broken_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    save_checkpoint(make_state(), path)
    content = path.read_bytes()
    broken = {"empty": b"", "garbage": b"nonsense" * 99, "truncated": content[:-1], "header": content[:20]}
    if damage in broken:
        path.write_bytes(broken[damage])
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    refusal(make_state(), path)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "nonsense"])
def test_a_file_with_a_dtype_of_another_program_is_refused(tmp_path: Path, dtype: str) -> None:
    content = safetensors.numpy.save({".step": np.zeros(2, np.int16), ".weights": np.zeros(2, np.int16)})
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b"I16", dtype.encode())
    (tmp_path / "state").write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    refusal(make_state(), tmp_path / "state")
