"""Mutated files of every kind that is read: each loads, or is answered by one `FloppyError`; nothing else is raised.

    python tests/stress/fuzz.py --count 100000 --out fuzz.csv

writes a row per reader: files tried, loaded and refused, other exceptions (which make the exit code 1), seconds, and
the peak of the process's memory.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax.numpy as jnp
import numpy as np
import tables
from probes import hand_dataset

import floppy
from floppy.errors import FloppyError
from floppy.recipes import recipe
from floppy.run.checkpoint import load_checkpoint, save_checkpoint
from floppy.run.folder import About, begin, check_same_options, read_metrics
from floppy.studies.folder import read_rows, read_study
from floppy.tasks.image_files import read_idx_folder
from floppy.tasks.images import image_task
from floppy.teach.arrays import import_npz
from floppy.teach.codec import unpack

INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"[", b"{", b'"', b"-", b"9" * 400, b"1e999", b"NaN", b"null", b":")


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The content with a few of: flipped bits, other bytes, parts cut out, doubled, swapped or replaced."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        # Headers, where most is decided, are changed as often as all that follows.
        end = len(data) if dice.random() < 0.5 else min(len(data), 400)
        first = dice.randrange(end)
        span = min(len(data), first + dice.choice((1, 1, 2, 8, 64)))
        match dice.randrange(7):
            case 0:
                data[first] ^= 1 << dice.randrange(8)
            case 1:
                data[first] = dice.randrange(256)
            case 2:
                del data[first:span]
            case 3:
                data[first:first] = data[first:span]
            case 4:
                data[first:span] = dice.choice(INTERESTING)
            case 5:
                data[first : first + 8] = struct.pack("<Q", dice.choice((0, 1, 2**31, 2**63, 2**64 - 1)))
            case _:
                del data[first:]
    return bytes(data)


@dataclasses.dataclass
class Reader:
    """A file, and what reads it."""

    name: str
    path: Path
    read: Callable[[], object]
    share: int = 1
    """Of the files that are tried."""

    def __post_init__(self) -> None:
        self.content = self.path.read_bytes()
        self.read()  # what is whole can be read


def readers(folder: Path) -> list[Reader]:
    """Every kind of file, written by this library or by NumPy."""
    dataset = hand_dataset({"normaliser": "frozen"}, obs_mean=np.zeros(4), obs_var=np.ones(4))
    floppy.save(dataset, folder / "dataset.safetensors")
    floppy.save_policies(floppy.train(dataset, 0, learners=2), folder / "policies.safetensors")
    merged = floppy.merge([hand_dataset(), hand_dataset({"task": "ndcartpole/2"}, sizes=(8, 4))])
    floppy.save(merged, folder / "merged.safetensors")
    state = {"weights": jnp.ones((3, 4)), "step": jnp.asarray(3)}
    save_checkpoint(state, folder / "checkpoint.safetensors")
    run, config = folder / "run", recipe("cartpole")
    about = About("floppy distill", [], [{"jax": "1"}])
    begin(run, config, about)
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25, "seconds": 1.5}\n')
    study = folder / "study"
    study.mkdir()
    (study / "study.json").write_text(
        json.dumps({"study": "minimum-size", "command": "", "files": {}, "task": "cartpole"})
    )
    table = ["activation,loss,examples,seed,cell_rows,learner,score,unit"]
    table += ["tanh,mse,1,0,2,0,9.5,mean return", "tanh,mse,1,0,2,1,8.5,mean return"]
    (study / "rows.csv").write_text("\n".join(table) + "\n")
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 2)
    meta = json.dumps(
        {"env": "CartPole", "dimensions": 1, "inner_steps": 1, "source_repository": "x", "source_file": "x"}
    )
    arrays = {"observations": np.ones((2, 4)), "targets": np.ones((2, 2)), "inner_lr": np.float32(0.1)}
    np.savez(folder / "arrays.npz", meta=meta, **arrays)
    idx = folder / "idx"
    idx.mkdir()
    for part in ("train", "t10k"):
        head = struct.pack(">4I", 2051, 40, 3, 3)
        (idx / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (idx / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 40) + bytes([0, 1] * 20))

    def whole(path: Path) -> object:
        read = floppy.load(path)
        return read.describe(), unpack(read).network()

    return [
        Reader("dataset", path := folder / "dataset.safetensors", lambda path=path: whole(path), 4),
        Reader("merged dataset", path := folder / "merged.safetensors", lambda path=path: whole(path), 2),
        Reader("policy file", path := folder / "policies.safetensors", lambda path=path: floppy.load_policies(path), 3),
        Reader(
            "checkpoint", path := folder / "checkpoint.safetensors", lambda path=path: load_checkpoint(state, path), 2
        ),
        Reader("config.json", run / "config.json", lambda: check_same_options(run, config, about.parents), 2),
        Reader("metrics.jsonl", run / "metrics.jsonl", lambda: read_metrics(run)),
        Reader("study.json", study / "study.json", lambda: read_study(study), 2),
        Reader("rows.csv", study / "rows.csv", lambda: read_rows(study)),
        Reader("images .npz", folder / "images.npz", lambda: image_task(str(folder / "images.npz"))),
        Reader("import .npz", folder / "arrays.npz", lambda: import_npz(folder / "arrays.npz")),
        Reader("IDX images", idx / "train-images-idx3-ubyte", lambda: read_idx_folder(idx)),
        Reader("IDX labels", idx / "train-labels-idx1-ubyte", lambda: read_idx_folder(idx)),
    ]


def tried(reader: Reader, count: int, seed: int) -> dict[str, object]:
    """The row of a reader, after `count` files."""
    dice, outcomes, started = (
        random.Random(f"{seed} {reader.name}"),
        {"loaded": 0, "refused": 0, "other": 0},
        time.time(),
    )
    for number in range(count):
        content = mutated(reader.content, dice)
        reader.path.write_bytes(content)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                reader.read()
            outcomes["loaded"] += 1
        except FloppyError as error:
            outcomes["refused" if "\n" not in str(error) else "other"] += 1
        except Exception:
            outcomes["other"] += 1
            (Path.cwd() / f"fuzz-{reader.path.name}-{number}").write_bytes(content)
            traceback.print_exc()
    reader.path.write_bytes(reader.content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        {"reader": reader.name, "files": count} | outcomes | {"seconds": round(time.time() - started), "peak_mib": peak}
    )


def main() -> int:
    """Tries them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz.csv"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        every = readers(Path(folder))
        shares = sum(reader.share for reader in every)
        rows = []
        for reader in every:
            rows.append(tried(reader, -(-given.count * reader.share // shares), given.seed))
            print(rows[-1], flush=True)
    tables.write(rows, given.out)
    return int(any(row["other"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
