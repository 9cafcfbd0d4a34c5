"""What a call asks for beside its seed: labels, truncation and noise, checked against the signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .errors import InputError, shown
from .inputs import Array, check_input, is_shared
from .signature import Signature, class_count

Label = int | str | Sequence[int | str]
Noise = Literal["shared", "drawn"]


def labels(signature: Signature, label: Label | None, count: int) -> Array | None:
    """int64 [] for one label, [count] for one each, None where they are drawn."""
    if label is None:
        return None
    if signature.label is None:
        raise InputError(
            "A label was given", seen="This model has no classes", repair="Leave label out"
        )
    if isinstance(label, np.ndarray):
        label = label.tolist()
    if isinstance(label, str) or not isinstance(label, Sequence):
        return np.asarray(_class_index(signature, label), np.int64)
    indices = np.array([_class_index(signature, one) for one in label], np.int64)
    if len(indices) != count:
        raise InputError(
            "The labels were refused",
            seen=f"{len(indices)} labels for {count} images",
            repair="Give one label, or one for each image",
        )
    return indices


def _class_index(signature: Signature, label: int | str) -> int:
    assert signature.label is not None
    known, names = class_count(signature.label), signature.classes
    if isinstance(label, str) and label in names:
        return names.index(label)
    integer = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if integer and 0 <= int(label) < known:
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
    check_input(field, [truncation])


def noise_for_each(signature: Signature, noise: str) -> bool:
    """Whether each image has noise of its own."""
    if noise == "shared":
        return False
    if noise != "drawn" or not any(is_shared(field) for field in signature.inputs):
        raise InputError(
            "The noise was refused",
            seen=f"{noise!r:.40}" if noise != "drawn" else "A model without noise inputs",
            repair="Leave noise out" if noise == "drawn" else 'Give "shared" or "drawn"',
        )
    return True
