"""The golden sample: two images by seed, recorded at export, by which a file is judged on any other machine."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ModelFileError, ParityError
from .inputs import Array, stand_in
from .signature import Field, Signature
from .values import MAX_UINT64

FORMAT = 1
SEED, COUNT, POSITIONS = 0, 2, 4096


@dataclass(frozen=True)
class Golden:
    """seed and count of the sample; for each of its images the values at fixed positions; digest of them all.

    step: of 255, by which hardware that computes in the file's lower precision may differ from what recorded it.
    """

    seed: int
    count: int
    values: NDArray[Any]  # [count, positions]
    digest: str
    step: int = 0

    @classmethod
    def record(cls, outputs: NDArray[Any], *, step: int = 0) -> Golden:
        """The golden sample of `outputs` [COUNT, ...]: images 0 and 1 of seed 0."""
        return cls(SEED, COUNT, _at_positions(outputs), _digest(outputs), step)

    def to_metadata(self) -> dict[str, Any]:
        little = self.values.astype(self.values.dtype.newbyteorder("<"))
        return {
            "format": FORMAT,
            "seed": self.seed,
            "count": self.count,
            "dtype": self.values.dtype.name,
            "values": [base64.b64encode(row.tobytes()).decode() for row in little],
            "sha256": self.digest,
            "step": self.step,
        }

    @classmethod
    def from_metadata(cls, content: Mapping[str, Any]) -> Golden:
        """What `to_metadata` wrote; `ModelFileError` for anything else."""
        try:
            if content["format"] != FORMAT or content["dtype"] not in ("uint8", "float32"):
                raise ValueError(f"format {content['format']!r:.40}")
            dtype = np.dtype(content["dtype"]).newbyteorder("<")
            rows = [
                np.frombuffer(base64.b64decode(row, validate=True), dtype)
                for row in content["values"]
            ]
            count, seed = content["count"], content["seed"]
            if type(count) is not int or not count == len(rows) == COUNT:
                raise ValueError(f"count {count!r:.40}")
            if type(seed) is not int or not 0 <= seed <= MAX_UINT64:
                raise ValueError(f"seed {seed!r:.40}")
            step = content.get("step", 0)
            if type(step) is not int or not 0 <= step <= 255:
                raise ValueError(f"step {step!r:.40}")
            return cls(seed, count, np.stack(rows), str(content["sha256"]), step)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                "The file's golden sample cannot be read",
                seen=f"{type(error).__name__}: {error!s:.100}",
                repair="Export the model again with `gan export`",
            ) from error

    def check_graph(self, digest: str, weights: Mapping[str, Any]) -> None:
        """Raise `ModelFileError` unless the graph's digest is the one recorded at export."""
        if weights.get("graph") != digest:
            raise ModelFileError(
                "The model was changed after its export",
                seen=f"graph digest {digest[:16]}, recorded {weights.get('graph')!s:.16}",
                repair="Copy the file again, or export it again",
            )

    def compare(self, outputs: NDArray[Any], field: Field, *, limit: float) -> str:
        """ "exact", or the largest step in a text; above `limit` steps of 255 raises `ParityError`."""
        if _digest(outputs) == self.digest:
            return "exact"
        seen = _at_positions(outputs)
        if seen.shape != self.values.shape:
            raise ParityError(
                "The golden sample has another size",
                seen=f"{seen.shape}, not {self.values.shape}",
                repair="Export the model again with `gan export`",
            )
        low, high = field.range or (-1.0, 1.0)
        steps = (
            np.abs(seen.astype(np.float64) - self.values.astype(np.float64)) * 255.0 / (high - low)
        )
        largest = float(steps.max()) if np.isfinite(steps).all() else float("inf")
        if not largest <= limit:
            raise ParityError(
                "This machine does not reproduce the golden sample",
                seen=f"The largest step is {largest:.3g} of 255, at most {limit:g} is allowed",
                repair="Compare onnxruntime versions and drivers with `gan inspect` and `gan doctor`",
            )
        return f"largest step {largest:.3g} of 255"


def golden_inputs(signature: Signature, seed: int, count: int) -> dict[str, Array]:
    """What the golden sample is made from: what `sample` draws, and stand-ins for what the caller brings."""
    return {
        field.name: stand_in(field, place, seed, range(count), signature.example_sizes)
        for place, field in enumerate(signature.inputs)
    }


def _at_positions(outputs: NDArray[Any]) -> NDArray[Any]:
    flat = outputs.reshape(len(outputs), -1)
    count = min(POSITIONS, flat.shape[1])
    return flat[:, np.arange(count) * flat.shape[1] // count]


def _digest(outputs: NDArray[Any]) -> str:
    import hashlib  # here: it loads OpenSSL, and only verify() needs it

    little = np.ascontiguousarray(outputs, outputs.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()
