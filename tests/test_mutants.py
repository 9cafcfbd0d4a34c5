"""Promise 4 on mutants of good files: no crash, no hang, nothing but a `GanError`, in 4 GB of memory.

GAN_TORTURE=1 raises the number of mutants from 400 to 20,000 (models) and from 100 to 5,000 (checkpoints), and that of
models of one operator with inputs by chance from 3,000 to 300,000.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gan.export import export
from gan.trainer import Request, train

TORTURE = bool(os.environ.get("GAN_TORTURE"))
MODELS, CHECKPOINTS, OPERATORS = (20_000, 5_000, 300_000) if TORTURE else (400, 100, 3_000)
SECONDS = 5.0  # for one mutant
START = 60.0  # for imports, on a busy machine
ROOT = Path(__file__).parent.parent
SMALL: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dcgan": ("shapes", {"resolution": 16, "width": 8, "latent": 8, "labels": False}),
    "cgan": ("digits", {"width": 8, "latent": 8}),
    "stylegan2": (
        "shapes",
        {"resolution": 16, "width": 8, "max_width": 8, "style": 8, "latent": 4, "mapping_layers": 1, "labels": False},
    ),
    "r3gan": ("shapes", {"resolution": 16, "width": 8, "latent": 8, "labels": False, "group": 4}),
    "pix2pix": ("edges", {"width": 4}),
    "srgan": ("shapes", {"width": 8}),
    "msg-gan": ("shapes", {"resolution": 16, "width": 8, "latent": 8, "labels": False}),
    "gan": ("ring", {}),
}  # fmt: skip
SYSTEMS = list(SMALL) if TORTURE else ["dcgan", "cgan", "pix2pix"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint and model of each system, barely trained: folders checkpoints and models."""
    root = tmp_path_factory.mktemp("good")
    for kind in ("checkpoints", "models"):
        (root / kind).mkdir()
    for system in SYSTEMS:
        data, given = SMALL[system]
        request = Request(
            data=data, out=root / system, system=system, given={**given, "steps": 1, "batch_size": 4}, threads=1,
            sample_every=10**9, measure_every=10**9,
        )  # fmt: skip
        checkpoint = train(request).folder.checkpoint
        checkpoint.rename(root / "checkpoints" / f"{system}.pt")
        export(
            root / "checkpoints" / f"{system}.pt",
            root / "models" / f"{system}.onnx",
            target="cpu",
            max_batch=2,
        )
    return root


def opened(kind: str, folder: Path, count: int) -> tuple[Counter[str], list[str]]:
    """How often mutants ended in each way, and what was wrong with which of them."""
    ends: Counter[str] = Counter()
    faults: list[str] = []
    number = 0
    while number < count:
        command = [
            sys.executable,
            "-m",
            "tests.mutants",
            kind,
            folder / kind,
            number,
            count - number,
        ]
        with (folder / "stderr").open("w+") as said:
            process = subprocess.Popen(
                [str(part) for part in command], stdout=subprocess.PIPE, stderr=said,
                cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            assert process.stdout is not None
            limit = START
            while True:
                if not select.select([process.stdout], [], [], limit)[0]:
                    process.kill()
                    faults.append(f"{number}: no end after {limit:g} s")
                    break
                found = os.read(process.stdout.fileno(), 1 << 16).decode()
                if not found:
                    break
                ends.update(found)
                number, limit = number + len(found), SECONDS
            process.stdout.close()
            if code := process.wait():
                if code != -9:
                    faults.append(f"{number}: exit code {code}")
                number += 1
            said.seek(0)
            faults += said.read().splitlines()
    return ends, faults


@pytest.mark.torture
def test_a_mutant_of_a_model_is_sampled_or_refused(folder: Path) -> None:
    ends, faults = opened("models", folder, MODELS)
    assert not faults
    assert ends.total() == MODELS
    assert ends["s"] + ends["w"] >= MODELS / 5  # onnxruntime saw them
    assert min(ends["r"], ends["w"]) >= MODELS / 20


@pytest.mark.torture
def test_a_mutant_of_a_checkpoint_is_loaded_or_refused(folder: Path) -> None:
    ends, faults = opened("checkpoints", folder, CHECKPOINTS)
    assert not faults
    assert ends.total() == CHECKPOINTS
    assert min(ends["r"], ends["w"]) >= CHECKPOINTS / 20


@pytest.mark.torture
def test_an_operator_that_the_reader_lets_through_does_not_end_the_process(tmp_path: Path) -> None:
    (tmp_path / "operators").mkdir()
    ends, faults = opened("operators", tmp_path, OPERATORS)
    assert not faults
    assert ends.total() == OPERATORS
    assert min(ends["r"], ends["s"], ends["w"]) >= OPERATORS / 20
