"""The kept corpus of the fuzzer is read without a fault; with GAN_TORTURE=1 the fuzzer goes on from it, 5 minutes a target.

What it finds is kept with: python tests/fuzzing.py --target=wire tests/corpus/wire FOUND -merge=1
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gan.runtime.errors import ModelFileError
from gan.runtime.model_file import ModelFile
from gan.runtime.wire import read_model

from . import fuzzing

TORTURE = bool(os.environ.get("GAN_TORTURE"))
CORPUS = Path(__file__).with_name("corpus")
SECONDS = 300


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_whatever_the_fuzzer_kept_is_read_or_refused(target: str) -> None:
    kept = list((CORPUS / target).iterdir())
    assert len(kept) >= 10
    ends = set()
    for path in kept:
        fuzzing.survives(target, path.read_bytes())
        try:
            fuzzing.TARGETS[target](path.read_bytes())
            ends.add("read")
        except ModelFileError:
            ends.add("refused")
    assert ends == {"read", "refused"}  # both ways are in the corpus


def test_a_fault_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    monkeypatch.setitem(fuzzing.TARGETS, "wire", broken)
    with pytest.raises(KeyError):
        fuzzing.survives("wire", b"")


def test_the_model_that_carries_the_metadata_is_well_formed() -> None:
    info = read_model(fuzzing.GRAPH)
    assert [(t.name, t.dtype, t.shape) for t in (*info.inputs, *info.outputs)] == [
        ("z", "float32", ("batch", 4)),
        ("image", "uint8", ("batch", 8, 8, 3)),
    ]
    with pytest.raises(ModelFileError, match="without the metadata of `gan export`"):
        ModelFile.read(fuzzing.GRAPH)


@pytest.mark.torture
@pytest.mark.skipif(not TORTURE, reason="15 minutes: make torture")
@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_the_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    options = [
        f"-max_total_time={SECONDS}",
        "-timeout=5",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={tmp_path}/",
    ]
    command = [
        sys.executable,
        fuzzing.__file__,
        f"--target={target}",
        found,
        CORPUS / target,
        *options,
    ]
    ended = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", ended.stderr)
    assert runs and int(runs[1]) > 10_000, ended.stderr[-1000:]
    assert any(found.iterdir())  # coverage led somewhere
