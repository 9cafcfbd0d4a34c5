"""Coverage-guided fuzzing of what reads a stranger's bytes: python tests/fuzzing.py --target=wire CORPUS... (libFuzzer's options).

Targets: wire (the protobuf reader), signature (its JSON), metadata (the sections of a model file: codec of the golden
sample, latents, weights).
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any


def wire(data: bytes) -> None:
    from gan.runtime.wire import read_model

    info = read_model(data)
    assert len(info.graph) <= len(data) and info.nodes == sum(info.operators.values())


def signature(data: bytes) -> None:
    from gan.runtime.signature import Signature

    found = Signature.from_json(data.decode(errors="replace"))
    again = Signature.from_json(found.to_json())
    assert again == found, "a signature that does not survive its own text"


def metadata(data: bytes) -> None:
    """Lines of NAME=TEXT become the metadata of an otherwise good model without a graph to speak of."""
    from gan.runtime.golden import Golden
    from gan.runtime.model_file import METADATA_KEYS, ModelFile

    lines = (line.partition(b"=") for line in data.split(b"\n"))
    model = GRAPH + b"".join(
        entry(14, entry(1, b"gan." + name) + entry(2, text)) for name, _, text in lines
    )
    found = ModelFile.read(model)
    for name in METADATA_KEYS:
        section = found.section(name)
        if name == "golden" and section:
            Golden.from_metadata(section)


def entry(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    size, digits = len(content), b""
    while size > 127:
        digits, size = digits + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + digits + bytes([size]) + content


def tensor(name: bytes, kind: int, *shape: int) -> bytes:
    dims = entry(1, entry(2, b"batch")) + b"".join(entry(1, bytes([8, size])) for size in shape)
    return entry(1, name) + entry(2, entry(1, bytes([8, kind]) + entry(2, dims)))


GRAPH = entry(7, entry(11, tensor(b"z", 1, 4)) + entry(12, tensor(b"image", 2, 8, 8, 3)))
TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": wire,
    "signature": signature,
    "metadata": metadata,
}


OPTION = "--target="  # libFuzzer passes it over, and on to the processes of a merge


def survives(target: str, data: bytes) -> None:
    """Any bytes are read, or refused with a `ModelFileError`; whatever else is raised is a fault."""
    from gan.runtime.errors import ModelFileError

    with contextlib.suppress(ModelFileError):
        TARGETS[target](data)


def main() -> None:
    atheris: Any = importlib.import_module("atheris")  # not installed but by `make torture`

    (target,) = (a.removeprefix(OPTION) for a in sys.argv if a.startswith(OPTION))
    with atheris.instrument_imports(include=["gan.runtime", "json"]):
        import gan.runtime.golden
        import gan.runtime.model_file  # noqa: F401
    again = f"{sys.executable} {__file__}"  # what a merge starts for each of its processes
    atheris.Setup([again, *sys.argv[1:]], lambda data: survives(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
