"""The model file: one self-contained .onnx with our metadata, read and judged without onnxruntime.

Every check here runs before a native library sees the bytes. At load nothing is measured and nothing is written.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import latents
from .errors import ModelFileError
from .protobuf import refused
from .signature import Field, Signature, parse_json_object
from .values import refused as refused_value
from .wire import MAX_BYTES, ModelInfo, TensorInfo, read_model

PREFIX = "gan."
METADATA_KEYS = (
    "signature",
    "latents",
    "system",
    "training",
    "parity",
    "golden",
    "tools",
    "weights",
)


@dataclass(frozen=True)
class ModelFile:
    """A checked model: its bytes, its signature, and its metadata."""

    name: str
    data: bytes
    signature: Signature
    info: ModelInfo

    @classmethod
    def read(cls, source: str | os.PathLike[str] | bytes) -> ModelFile:
        """Read a path, or bytes already in memory. Raises `ModelFileError` for whatever is not a model of ours."""
        if isinstance(source, (bytes, bytearray, memoryview)):
            name, data = "<bytes>", bytes(source)
        else:
            try:
                path = Path(source)
            except Exception as error:  # what is no path, or an object that cannot say which
                repair = "Give a path, or the bytes of a file"
                raise refused_value("model", source, repair) from error
            name, data = os.fspath(source), _read_bytes(path)
        if data[:2] == b"PK":  # torch.save writes a zip
            raise ModelFileError(
                f"{name} cannot be sampled",
                seen="It looks like a checkpoint, not like an exported model",
                repair=f"Export it first: gan export {name} model.onnx",
            )
        try:
            info = read_model(data)
        except ModelFileError as error:
            raise ModelFileError(
                f"{name} was refused", seen=error.seen, repair=error.repair
            ) from error
        if PREFIX + "signature" not in info.metadata:
            raise ModelFileError(
                f"{name} cannot be sampled",
                seen="It is an ONNX file without the metadata of `gan export`",
                repair="Train and export it with this toolchain: gan export model.pt model.onnx",
            )
        signature = Signature.from_json(info.metadata[PREFIX + "signature"])
        _check_fields(signature.inputs, info.inputs, "input")
        _check_fields(signature.outputs, info.outputs, "output")
        _check_latents(info.metadata.get(PREFIX + "latents"))
        return cls(name, data, signature, info)

    def section(self, name: str) -> dict[str, Any]:
        """One part of the metadata, such as "parity"; {} where the file has none."""
        if not isinstance(name, str):
            raise refused_value("section", name, f"Give one of: {', '.join(METADATA_KEYS)}")
        text = self.info.metadata.get(PREFIX + name)
        return {} if text is None else parse_json_object(text, name)

    def graph_digest(self) -> str:
        """SHA-256 of the graph's bytes: network and weights."""
        import hashlib  # here: it loads OpenSSL, and only verify() needs it

        return hashlib.sha256(self.info.graph).hexdigest()


def _read_bytes(path: Path) -> bytes:
    failed = f"{path!s:.200} cannot be read"
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
            return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFileError(
            failed, seen="There is no such file", repair="Check the path"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(failed, seen=f"{error!s:.200}", repair="Check the path") from error
    if status.st_size > MAX_BYTES:
        raise refused(f"{path} has {status.st_size} bytes, more than 2 GiB")
    # a pipe or a device need not end
    raise ModelFileError(failed, seen="It is not a file", repair="Check the path")


def _check_fields(fields: tuple[Field, ...], tensors: list[TensorInfo], what: str) -> None:
    if [field.name for field in fields] != [tensor.name for tensor in tensors]:
        raise _lie(
            f"{what}s {[t.name for t in tensors]!r:.200} in the graph, {[f.name for f in fields]!r:.200}"
        )
    for field, tensor in zip(fields, tensors, strict=True):
        if tensor.dtype != field.dtype:
            raise _lie(f"{what} {field.name} is {tensor.dtype} in the graph, {field.dtype}")
        batch, *rest = tensor.shape or (None,)
        if not isinstance(batch, str):
            raise _lie(
                f"{what} {field.name} has the fixed batch {batch} in the graph, a dynamic one"
            )
        same = len(rest) == len(field.shape) and all(
            seen == axis if isinstance(axis, int) else isinstance(seen, str)
            for seen, axis in zip(rest, field.shape, strict=True)
        )
        if not same:
            raise _lie(
                f"{what} {field.name} has the shape {rest!r:.100} in the graph, {list(field.shape)!r:.100}"
            )


def _check_latents(text: str | None) -> None:
    version = parse_json_object(text or "{}", "latents").get("version")
    if version != latents.VERSION:
        raise ModelFileError(
            "The model's latent stream is not known here",
            seen=f"Version {version!r:.40}; this runtime draws version {latents.VERSION}",
            repair="Update the runtime, or export the model again",
        )


def _lie(seen: str) -> ModelFileError:
    return ModelFileError(
        "The model's metadata disagrees with its graph",
        seen=f"{seen} in the signature",
        repair="Export it again with `gan export`",
    )
