"""Tiny ONNX models that make an image of an image, written by hand: strided convolutions, pixel shuffles, any padding."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from .conftest import TYPES

CLASSES = ("dusk", "night")
LATENT = 3


@dataclass(frozen=True)
class Translating:
    """factor: the axes are "factor*h"; scale: how many times the image grows. size: height and width, where it takes
    one only. radius: None leaves it out, though the network has one."""

    factor: int = 1
    scale: int = 1
    channels: int = 3
    made: int = 3
    uint8: bool = True
    mask: bool = False
    label: bool = False
    latent: bool = False
    size: tuple[int, int] | None = None
    least: int = 1
    padding: str = "constant"
    bounded: bool = True
    width: int = 6
    gain: float = 1.0

    @property
    def halvings(self) -> int:
        return int(math.log2(self.factor))

    @property
    def doublings(self) -> int:
        return int(math.log2(self.factor * self.scale))

    @property
    def radius(self) -> int:
        """Two 3x3 convolutions at the image's size and at the smallest, 4x4 ones that halve, 3x3 before each shuffle."""
        halving = sum(2 * 2**i for i in range(self.halvings))
        doubling = sum(self.factor / 2**i for i in range(self.doublings + 1))
        return 2 + halving + 2 * self.factor + math.ceil(doubling)

    @property
    def signature(self) -> dict[str, Any]:
        def image(name: str, channels: int, factor: int, kind: str = "image") -> dict[str, Any]:
            axes: list[Any] = [f"{factor}*{n}" if factor > 1 else n for n in ("h", "w")]
            if self.size:
                axes = [n * (factor // self.factor) for n in self.size]
            low = -1 if kind == "image" else 0
            shape, bounds = (
                ([*axes, channels], [0, 255]) if self.uint8 else ([channels, *axes], [low, 1])
            )
            dtype = "uint8" if self.uint8 else "float32"
            return {"name": name, "shape": shape, "kind": kind, "dtype": dtype, "range": bounds}

        inputs = [image("image", self.channels, self.factor)]
        if self.mask:
            inputs.append(image("mask", 1, self.factor, "mask"))
        if self.label:
            label = {"name": "label", "shape": [], "kind": "label", "dtype": "int64"}
            draw = {"kind": "choice", "stream": 1}
            inputs.append({**label, "range": [0, 1], "draw": draw})
        if self.latent:
            z = {"name": "z", "shape": [LATENT], "kind": "latent", "dtype": "float32"}
            inputs.append({**z, "draw": {"kind": "normal", "stream": 0}})
        content: dict[str, Any] = {
            "format": 1,
            "inputs": inputs,
            "outputs": [image("made", self.made, self.factor * self.scale)],
            "classes": list(CLASSES) if self.label else [],
        }
        if self.bounded:
            content["radius"] = self.radius
        if self.least != 1:
            content["least"] = self.least
        return content

    @functools.cached_property
    def file(self) -> bytes:
        """Without a golden sample: no test here verifies."""
        opset = helper.make_opsetid("", 20)
        model = helper.make_model(_Builder(self).graph(), opset_imports=[opset], ir_version=10)
        for name, content in {"signature": self.signature, "latents": {"version": 1}}.items():
            model.metadata_props.add(key=f"gan.{name}", value=json.dumps(content))
        return model.SerializeToString(deterministic=True)


def translating_model(**about: Any) -> bytes:
    return Translating(**about).file


class _Builder:
    def __init__(self, about: Translating) -> None:
        self.about, self.rng = about, np.random.RandomState(3)
        self.nodes: list[NodeProto] = []
        self.constants: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> str:
        scale = self.about.gain / math.sqrt(c_in * kernel * kernel)
        weight = self.constant(
            (self.rng.randn(c_out, c_in, kernel, kernel) * 2 * scale).astype(np.float32)
        )
        bias = self.constant((self.rng.randn(c_out) * 0.2).astype(np.float32))
        pads = self.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
        x = self.add("Pad", x, pads, mode=self.about.padding)
        return self.add("Conv", x, weight, bias, strides=[stride, stride])

    def pictured(self, name: str, kind: str) -> str:
        if not self.about.uint8:
            return name
        x = self.add("Cast", name, to=TensorProto.FLOAT)
        x = self.add("Transpose", x, perm=[0, 3, 1, 2])
        if kind == "mask":
            return self.add("Div", x, self.number(255))
        return self.add("Sub", self.add("Div", x, self.number(127.5)), self.number(1))

    def graph(self) -> GraphProto:
        a, w = self.about, self.about.width
        x, channels = self.pictured("image", "image"), a.channels
        if a.mask:
            mask = self.pictured("mask", "mask")
            hole = self.add("Greater", mask, self.number(0.5))
            hole = self.add("Cast", hole, to=TensorProto.FLOAT)
            x, channels = self.add("Concat", x, hole, axis=1), channels + 1
        x = self.add("Tanh", self.conv(x, channels, w))
        for _ in range(a.halvings):
            x = self.add("Tanh", self.conv(x, w, w, 4, 2))
        shape = self.constant(np.array([-1, w, 1, 1]))
        if a.label:
            table = self.constant(self.rng.randn(2, w).astype(np.float32))
            x = self.add("Add", x, self.add("Reshape", self.add("Gather", table, "label"), shape))
        if a.latent:
            weight = self.constant(self.rng.randn(LATENT, w).astype(np.float32))
            x = self.add("Add", x, self.add("Reshape", self.add("MatMul", "z", weight), shape))
        for _ in range(2):
            x = self.add("Tanh", self.conv(x, w, w))
        for _ in range(a.doublings):
            x = self.add("DepthToSpace", self.conv(x, w, 4 * w), blocksize=2)
            x = self.add("Tanh", x)
        x = self.add("Tanh", self.conv(x, w, a.made))
        if a.uint8:
            x = self.add("Mul", x, self.number(127.5))
            x = self.add("Add", x, self.number(127.5))
            x = self.add("Round", x)
            x = self.add("Cast", x, to=TensorProto.UINT8)
            self.add("Transpose", x, perm=[0, 2, 3, 1], out="made")
        else:
            self.add("Identity", x, out="made")
        inputs, outputs = (
            [
                helper.make_tensor_value_info(f["name"], TYPES[f["dtype"]], ["batch", *f["shape"]])
                for f in a.signature[side]
            ]
            for side in ("inputs", "outputs")
        )
        return helper.make_graph(self.nodes, "translating", inputs, outputs, self.constants)
