"""Winograd's method: the transforms are exact, the rewritten graph is the convolution, at about its rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from gan.export import winograd
from gan.export.editing import Editor
from gan.export.winograd import transforms, use_winograd

from .onnx_graphs import Array, copied, model, normal, operators, run


def convolution(
    i: int, o: int, size: tuple[int, int], *, bias: bool = True, **attributes: Any
) -> tuple[Any, Array, Array | None]:
    w, b = normal(o, i, 3, 3) / np.float32(3 * i**0.5), normal(o, seed=1) if bias else None
    settings = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} | attributes
    constants = {"w": w} | ({} if b is None else {"b": b})
    node = helper.make_node("Conv", ["x", *constants], ["y"], **settings)
    return model([node], constants, {"x": ["batch", i, *size]}, ["y"]), w, b


def test_the_transforms_give_the_convolution_of_any_tile_in_float64() -> None:
    a_t, g, b_t = transforms()
    rng = np.random.default_rng(0)
    for _ in range(20):
        d, w = rng.standard_normal((6, 6)), rng.standard_normal((3, 3))
        y = a_t @ ((g @ w @ g.T) * (b_t @ d @ b_t.T)) @ a_t.T
        truth = [[(d[r : r + 3, c : c + 3] * w).sum() for c in range(4)] for r in range(4)]
        np.testing.assert_allclose(y, truth, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_the_graph_is_the_convolution_at_any_batch(size: tuple[int, int], bias: bool) -> None:
    made, w, b = convolution(96, 112, size, bias=bias)
    editor = Editor(made)
    assert use_winograd(editor) == 1
    editor.close()
    assert operators(made).count("Conv") == 2 and "ConvTranspose" in operators(made)
    for batch in (1, 3):
        x = normal(batch, 96, *size, seed=2)
        truth = torch.nn.functional.conv2d(
            torch.from_numpy(x).double(), torch.from_numpy(w).double(),
            None if b is None else torch.from_numpy(b).double(), padding=1,
        ).numpy()  # fmt: skip
        (y,) = run(made, x=x)
        np.testing.assert_allclose(y, truth, atol=2e-5)


def test_its_rounding_is_within_eight_times_that_of_the_plain_convolution() -> None:
    made, w, _ = convolution(256, 96, (16, 16), bias=False)
    plain = copied(made)
    editor = Editor(made)
    use_winograd(editor)
    editor.close()
    x = normal(2, 256, 16, 16, seed=2)
    truth = torch.nn.functional.conv2d(
        torch.from_numpy(x).double(), torch.from_numpy(w).double(), padding=1
    ).numpy()
    error, own = (float(np.sqrt(np.mean((run(m, x=x)[0] - truth) ** 2))) for m in (made, plain))
    assert 0 < error < 8 * own and error < 2e-6


def test_the_points_round_less_than_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal((200, 64, 6, 6)), rng.standard_normal((64, 3, 3)) / 24
    windows = np.lib.stride_tricks.sliding_window_view(d, (3, 3), axis=(2, 3))
    truth = np.einsum("tcxyab,cab->txy", windows, w)

    def error() -> float:
        a_t, g, b_t = (t.astype(np.float32) for t in transforms())
        u = np.einsum("ak,ckl,bl->cab", g, w.astype(np.float32), g)
        v = np.einsum("ax,tcxy,by->tcab", b_t, d.astype(np.float32), b_t)
        y = np.einsum("xa,tab,yb->txy", a_t, np.einsum("tcab,cab->tab", v, u), a_t)
        return float(np.sqrt(np.mean((y - truth) ** 2)))

    ours = error()
    monkeypatch.setattr(winograd, "POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    assert ours < error() / 1.5


@pytest.mark.parametrize(
    ("i", "o", "size", "attributes"),
    [
        (64, 96, (16, 16), {}),  # few channels
        (96, 64, (16, 16), {}),
        (96, 96, (12, 16), {}),  # small
        (96, 96, (18, 16), {}),  # not whole tiles
        (96, 96, (16, 16), {"strides": [2, 2]}),
        (96, 96, (16, 16), {"dilations": [2, 2]}),
        (96, 96, (16, 16), {"pads": [0, 0, 0, 0]}),
        (96, 96, (16, 16), {"pads": [1, 1, 0, 1]}),
    ],
)
def test_what_does_not_fit_is_left(
    i: int, o: int, size: tuple[int, int], attributes: dict[str, Any]
) -> None:
    made, _, _ = convolution(i, o, size, **attributes)
    before = made.SerializeToString()
    assert use_winograd(Editor(made)) == 0 and made.SerializeToString() == before


def test_groups_unknown_sizes_and_weights_that_are_no_constants_are_left() -> None:
    grouped = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4, group=2)
    weights = {"w": normal(192, 96, 3, 3)}
    assert (
        use_winograd(Editor(model([grouped], weights, {"x": ["batch", 192, 16, 16]}, ["y"]))) == 0
    )
    plain = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    weights = {"w": normal(96, 96, 3, 3)}
    assert use_winograd(Editor(model([plain], weights, {"x": ["batch", 96, "h", "w"]}, ["y"]))) == 0
    sizes: dict[str, list[int | str]] = {"x": ["batch", 96, 16, 16], "w": [96, 96, 3, 3]}
    assert use_winograd(Editor(model([plain], {}, sizes, ["y"]))) == 0
