"""Keys by name: different names, different streams; the same name, the same stream in every process."""

import jax
import numpy as np

from floppy.keys import named_key


def data(key: jax.Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


def test_names_and_keys_give_different_streams():
    names = ["width", "depth", "initialiser", "layer 0", "layer 1", "", "Width"]
    keys = [jax.random.key(0), jax.random.key(1)]
    found = [data(key) for key in keys] + [data(named_key(key, name)) for key in keys for name in names]
    assert len({tuple(pair) for pair in found}) == len(found)


def test_same_name_gives_the_same_key_whatever_was_asked_before():
    key = jax.random.key(3)
    first = data(named_key(key, "width"))
    named_key(key, "depth")
    assert data(named_key(key, "width")) == first
    assert data(jax.jit(lambda k: named_key(k, "width"))(key)) == first


def test_keys_are_the_same_in_every_process():
    # Computed once: Python's own hash of a string would differ from process to process.
    assert data(named_key(jax.random.key(0), "width")) == [639528151, 1569817664]
    assert data(named_key(jax.random.key(0), "layer 0")) == [2091756122, 1382050396]
