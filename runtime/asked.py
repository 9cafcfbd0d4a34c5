"""What a call asks for beside its seed: labels, truncation and noise, checked against the signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from .errors import InputError, shown
from .inputs import Array, check_input, is_shared
from .signature import LIMITS, Signature, class_count
from .values import check_choice, check_number, is_integer

Label = int | str | Sequence[int | str]
Noise = Literal["shared", "drawn"]
BYTES = (bytes, bytearray, memoryview)  # sequences of integers by their type alone


def labels(signature: Signature, label: Label | None, count: int) -> Array | None:
    """int64 [] for one label, [count] for one each, None where they are drawn."""
    if label is None:
        return None
    if signature.label is None:
        raise InputError(
            "A label was given", seen="This model has no classes", repair="Leave label out"
        )
    if isinstance(label, np.ndarray) and label.ndim == 0:
        label = label.item()
    if isinstance(label, (str, *BYTES)) or not isinstance(label, Sequence | np.ndarray):
        return np.asarray(_class_index(signature, label), np.int64)  # type: ignore[arg-type]
    if len(label) != count:
        raise InputError(
            "The labels were refused",
            seen=f"{len(label)} labels for {count} images",
            repair="Give one label, or one for each image",
        )
    return np.array([_class_index(signature, one) for one in label], np.int64)


def _class_index(signature: Signature, label: int | str) -> int:
    assert signature.label is not None
    known, names = class_count(signature.label), signature.classes
    if isinstance(label, str) and label in names:
        return names.index(label)
    if is_integer(label) and 0 <= int(label) < known:
        return int(label)
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise InputError(
        "The label was refused",
        seen=shown(label),
        repair=f"Give a class index from 0 to {known - 1}"
        + (f", or one of: {listed}" if names else ""),
    )


def check_truncation(signature: Signature, truncation: float | None) -> None:
    if truncation is None:
        return
    field = signature.input("truncation")
    if field is None:
        raise InputError(
            "Truncation was given", seen="This model has none", repair="Leave truncation out"
        )
    low, high = field.range or LIMITS[field.dtype]
    check_input(field, [check_number("truncation", truncation, low, high)])


def noise_for_each(signature: Signature, noise: str) -> bool:
    """Whether each image has noise of its own."""
    check_choice("noise", noise, get_args(Noise))
    if noise == "drawn" and not any(is_shared(field) for field in signature.inputs):
        raise InputError(
            "The noise was refused", seen="A model without noise inputs", repair="Leave noise out"
        )
    return noise == "drawn"
