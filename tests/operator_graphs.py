"""Models of one operator with inputs and attributes by chance, from types that its schema allows: no generators, but
what onnxruntime would be asked to compute if a stranger's file held it."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

INTEGERS = (-(2**63), -(2**31), -100, -2, -1, 0, 1, 2, 3, 5, 64, 2**31 - 1, 2**31, 2**40, 2**62)
FLOATS = (0.0, -0.0, -1.0, 1e-45, 0.5, 3.0, 1e30, -1e38, float("inf"), float("-inf"), float("nan"))
SHAPES: tuple[tuple[int, ...], ...] = (
    (), (0,), (1,), (2,), (4,), (2, 2), (1, 4), (4, 1), (1, 1, 4), (1, 2, 4, 4), (1, 4, 2, 2), (2, 3, 3), (1, 1, 1, 1),
    (1, 4, 0, 2), (4, 4, 3, 3), (1, 1, 2, 2, 2),
)  # fmt: skip
TYPES = {
    f"tensor({name})": np.dtype(kind)
    for name, kind in {
        "float": "f4", "double": "f8", "float16": "f2", "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
        "uint64": "u8", "uint32": "u4", "uint8": "u1", "bool": "?",
    }.items()
}  # fmt: skip
USUAL = (np.dtype("f4"), np.dtype("i8"))
TEXTS = [
    "linear",
    "nearest",
    "cubic",
    "reflect",
    "edge",
    "wrap",
    "SAME_UPPER",
    "SAME_LOWER",
    "VALID",
    "DCR",
    "CRD",
    "bilinear",
    "ij,jk->ik",
    "ii->i",
    "i,j->ij",
    "...i->...",
    "...ij,...jk->...ik",
    "...,...->...",
    "i...,...",
    "a...b->b...a",
    "ij->",
    ",->",
    "add",
    "mul",
    "max",
    "none",
    "forward",
    "bidirectional",
    "reverse",
    "align_corners",
    "asymmetric",
    "pytorch_half_pixel",
    "tf_crop_and_resize",
    "exact",
    "tanh",
]


@functools.cache
def schemas() -> list[Any]:
    """All operators of ONNX's own domain but those that hold graphs."""
    found = [s for s in defs.get_all_schemas() if s.domain == "" and not s.deprecated]
    graph = defs.OpSchema.AttrType.GRAPH
    plain = [s for s in found if all(a.type != graph for a in s.attributes.values())]
    return sorted(plain, key=lambda schema: str(schema.name))


def some_graph(dice: random.Random, operator: str | None = None) -> bytes:
    """A model that needs no inputs: each has a value, fixed or to be replaced."""
    from gan.runtime.operators import OPERATORS

    allowed = [s for s in schemas() if s.name in OPERATORS]
    schema = dice.choice(allowed if dice.random() < 0.95 else schemas())
    if operator:
        (schema,) = (s for s in schemas() if s.name == operator)
    types: dict[str, np.dtype[Any]] = {}
    shape = dice.choice(SHAPES)
    names, values = list[str](), dict[str, Any]()
    for place in range(dice.randint(schema.min_input, min(schema.max_input, schema.min_input + 4))):
        if place and dice.random() < 0.04:
            names.append("")
            continue
        names.append(f"x{place}")
        mine = shape if dice.random() < 0.35 else dice.choice(SHAPES)
        values[names[-1]] = some_array(type_of(schema, place, types, dice), mine, dice)
    outputs = [
        f"y{i}" for i in range(max(1, dice.randint(schema.min_output, min(schema.max_output, 3))))
    ]
    node = helper.make_node(schema.name, names, outputs, **some_attributes(schema, dice))
    given = {name: value for name, value in values.items() if dice.random() < 0.4}
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for name, v in given.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opset = helper.make_opsetid("", dice.choice((17, 20, 21, 22)))
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString())


def type_of(
    schema: Any, place: int, types: dict[str, np.dtype[Any]], dice: random.Random
) -> np.dtype[Any]:
    """The type of an input; inputs of one type parameter have one type."""
    name = schema.inputs[min(place, len(schema.inputs) - 1)].type_str
    if name not in types:
        texts = [c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == name]
        able = [TYPES[text] for text in (texts[0] if texts else [name]) if text in TYPES]
        usual = [kind for kind in able if kind in USUAL]
        chosen = usual if usual and dice.random() < 0.7 else able
        types[name] = dice.choice(chosen) if chosen else np.dtype("f4")
    return types[name]


def some_array(kind: np.dtype[Any], shape: tuple[int, ...], dice: random.Random) -> Any:
    """Small numbers, and a quarter of extremes."""
    extremes = FLOATS if kind.kind == "f" else INTEGERS
    count = int(np.prod(shape, dtype=int))
    numbers = [
        dice.choice(extremes) if dice.random() < 0.25 else dice.randint(0, 4) for _ in range(count)
    ]
    with np.errstate(all="ignore"):
        cast = [np.array(number).astype(kind) for number in numbers]
    return np.array(cast, kind).reshape(shape)


def some_attributes(schema: Any, dice: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, attribute in schema.attributes.items():
        if dice.random() > (0.95 if attribute.required else 0.4):
            continue
        integers = [
            dice.choice(INTEGERS) if dice.random() < 0.4 else dice.randint(0, 3) for _ in range(8)
        ]
        match attribute.type.name:
            case "INT":
                made[name] = integers[0]
            case "INTS":
                made[name] = integers[: dice.choice((1, 2, 2, 3, 4, 4, 8))]
            case "FLOAT":
                made[name] = dice.choice(FLOATS)
            case "STRING":
                made[name] = dice.choice(TEXTS)
            case "TENSOR":
                made[name] = numpy_helper.from_array(
                    some_array(dice.choice(list(TYPES.values())), (1,), dice)
                )
    if schema.name == "Cast":
        made["to"] = dice.choice((1, 2, 3, 6, 7, 9, 10, 11, 12, 13, 16))
    return made
