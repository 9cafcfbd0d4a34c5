"""Makes mutants of good files and opens them, one after the other, in a process of its own with 4 GB of memory.

A byte on stdout says how each ended. The same number is always the same mutant:
python -m tests.mutants models FOLDER 123 1
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import pickletools
import random
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gan.runtime.errors import GanError

from .operator_graphs import some_graph

MEMORY = 4 << 30
REFUSED, REACHED, WORKED, FOREIGN = (
    b"r",
    b"s",
    b"w",
    b"x",
)  # before onnxruntime or build, by it, not
INTEGERS = (
    -(2**63),
    -(2**31),
    -100,
    -2,
    -1,
    0,
    1,
    2,
    3,
    5,
    7,
    64,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
)
FLOATS = (0.0, -0.0, -1.0, 1e-45, 0.5, 3.0, 1e30, -1e38, float("inf"), float("-inf"), float("nan"))
JSON: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**64,
    1.5,
    1e300,
    "",
    "x",
    "\x1b[2J",
    [],
    {},
    [[[]]],
    {"a": 1},
)


def changed_bytes(data: bytes, dice: random.Random) -> bytes:
    """A few bytes flipped, cut out, put in or moved."""
    made = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place, way = dice.randrange(len(made)), dice.randrange(6)
        if way < 3:
            made[place] = dice.choice((dice.randrange(256), made[place] ^ 1 << dice.randrange(8)))
        elif way == 3:
            del made[place : place + dice.randint(1, 8)]
        elif way == 4:
            made[place:place] = dice.randbytes(dice.randint(1, 8))
        else:
            other = dice.randrange(len(made))
            made[place : place + 16] = made[other : other + 16]
    return bytes(made)


# Models


def changed_model(data: bytes, dice: random.Random) -> bytes:
    import onnx

    if dice.random() < 0.2:
        return changed_bytes(data, dice)
    model = onnx.load_model_from_string(data)
    if dice.random() < 0.25:
        entry = dice.choice(model.metadata_props)
        entry.value = changed_json(entry.value, dice)
        return bytes(model.SerializeToString())
    for _ in range(dice.randint(1, 2)):
        dice.choice(GRAPH_CHANGES)(model.graph, dice)
    if dice.random() < 0.05:
        model.opset_import[0].version = dice.choice((1, 7, 13, 17, 19, 21, 23, 99))
    record_digest(model)
    return bytes(model.SerializeToString())


def record_digest(model: Any) -> None:
    """The graph's digest is that of the changed graph, so that verify() goes on to run it."""
    from gan.runtime.wire import read_model

    for entry in model.metadata_props:
        if entry.key == "gan.weights":
            graph = read_model(model.SerializeToString()).graph
            content = json.loads(entry.value) | {"graph": hashlib.sha256(graph).hexdigest()}
            entry.value = json.dumps(content)


def change_operator(graph: Any, dice: random.Random) -> None:
    dice.choice(graph.node).op_type = dice.choice(graph.node).op_type


def change_wiring(graph: Any, dice: random.Random) -> None:
    one, other = dice.choice(graph.node), dice.choice(graph.node)
    names = [*other.input, *other.output, *(t.name for t in graph.initializer), ""]
    if one.input:
        one.input[dice.randrange(len(one.input))] = dice.choice(names)


def change_attribute(graph: Any, dice: random.Random) -> None:
    nodes = [node for node in graph.node if node.attribute]
    if not nodes:
        return
    node = dice.choice(nodes)
    attribute = dice.choice(node.attribute)
    if dice.random() < 0.1:
        node.attribute.remove(attribute)
    elif attribute.ints:
        attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(INTEGERS)
    elif attribute.type == 2:
        attribute.i = dice.choice(INTEGERS)
    elif attribute.type == 1:
        attribute.f = dice.choice(FLOATS)
    elif attribute.type == 3:
        attribute.s = dice.choice((b"", b"x", b"SAME_UPPER", b"linear", b"reflect", b"nearest"))


def change_constant(graph: Any, dice: random.Random) -> None:
    """Values of a small constant, such as a shape, or its sizes or type."""
    import numpy as np
    from onnx import numpy_helper

    small = [t for t in graph.initializer if len(t.raw_data) <= 256] or list(graph.initializer)
    tensor = dice.choice(small)
    way = dice.randrange(10)
    if way == 0:
        tensor.data_type = dice.choice((1, 2, 6, 7, 9, 10, 11, 16))
    elif way == 1 and tensor.dims:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(INTEGERS)
    elif way == 2:
        del tensor.dims[:]
    else:
        values = numpy_helper.to_array(tensor).copy()
        if not values.size or values.dtype.kind not in "iuf":
            return
        extreme = np.array(dice.choice(FLOATS if values.dtype.kind == "f" else INTEGERS))
        with np.errstate(all="ignore"):
            values.reshape(-1)[dice.randrange(values.size)] = extreme.astype(values.dtype)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def change_nodes(graph: Any, dice: random.Random) -> None:
    """A node gone, twice, or in another place."""
    place, way = dice.randrange(len(graph.node)), dice.randrange(3)
    if way == 0 and len(graph.node) > 1:
        del graph.node[place]
    elif way == 1:
        graph.node.add().CopyFrom(graph.node[place])
    else:
        other = dice.randrange(len(graph.node))
        kept = type(graph.node[0])()
        kept.CopyFrom(graph.node[place])
        graph.node[place].CopyFrom(graph.node[other])
        graph.node[other].CopyFrom(kept)


def change_ends(graph: Any, dice: random.Random) -> None:
    """Type or shape of an input or output."""
    tensor = dice.choice([*graph.input, *graph.output]).type.tensor_type
    if dice.random() < 0.3:
        tensor.elem_type = dice.choice((1, 2, 6, 7, 9, 10, 11, 99))
    elif tensor.shape.dim:
        dice.choice(tensor.shape.dim).dim_value = dice.choice(INTEGERS)


GRAPH_CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    change_operator, change_wiring, change_attribute, change_attribute, change_constant, change_constant,
    change_constant, change_nodes, change_ends,
)  # fmt: skip


def changed_json(text: str, dice: random.Random) -> str:
    """One value somewhere in it replaced, gone, or doubled; seldom the text itself changed."""
    if dice.random() < 0.15:
        return changed_bytes(text.encode(), dice).decode(errors="replace")
    content = json.loads(text)
    places = list(containers(content))
    if not places:
        return "{}"
    inside = dice.choice(places)
    key = dice.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
    way = dice.randrange(5)
    if way == 0:
        del inside[key]
    elif way == 1 and isinstance(inside, list):
        inside.append(inside[key])
    else:
        inside[key] = dice.choice((*JSON, *INTEGERS))
    return json.dumps(content)


def containers(value: Any) -> Iterator[Any]:
    """Every dict and list of a tree that holds something."""
    if isinstance(value, (dict, list)) and value:
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from containers(part)


def try_model(data: bytes) -> bytes:
    from gan.runtime import Generator, session

    reached = []
    module: Any = session
    create = module._create

    def noted(*given: Any) -> Any:
        reached.append(True)
        return create(*given)

    module._create = noted
    try:
        generator = Generator(data, device="cpu", threads=1, max_output_bytes=1 << 24)
        brings = any(field.draw is None for field in generator.signature.inputs)
        if not brings:
            images = generator.sample(2, seed=0)
            assert images.shape == (2, *generator.signature.main.shape), "another shape"
        generator.verify()
        return WORKED
    except GanError:
        return REACHED if reached else REFUSED
    finally:
        module._create = create


# Checkpoints


def changed_checkpoint(data: bytes, dice: random.Random) -> bytes:
    way = dice.random()
    if way < 0.25:
        return changed_bytes(data, dice)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    if way < 0.5:
        entries[name] = changed_pickle(entries[name], dice)
    elif way < 0.9:
        return changed_tree(data, dice)
    else:
        other = dice.choice(list(entries))
        if dice.random() < 0.3:
            del entries[other]
        else:
            entries[other] = changed_bytes(entries[other] or b"x", dice)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:  # with the CRC of what is in it now
        for entry, content in entries.items():
            archive.writestr(entry, content)
    return made.getvalue()


def changed_pickle(data: bytes, dice: random.Random) -> bytes:
    """A whole instruction gone, twice, or another one; or bytes."""
    if dice.random() < 0.3:
        return changed_bytes(data, dice)
    starts = [place for _, _, place in pickletools.genops(data) if place is not None]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    place = dice.randrange(len(parts))
    parts[place] = dice.choice((b"", parts[place] * 2, dice.choice(parts)))
    return b"".join(parts)


def changed_tree(data: bytes, dice: random.Random) -> bytes:
    """A value of the content replaced by one of another kind, gone, or doubled."""
    import torch

    content = torch.load(io.BytesIO(data), weights_only=True)
    section = content[dice.choice(list(content))]
    inside = dice.choice(list(containers(section)) or [content])
    key = dice.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
    value = inside[key]
    odd: list[Any] = [
        *JSON,
        *INTEGERS,
        *FLOATS,
        torch.zeros(2),
        torch.ones(2, dtype=torch.int64),
        (1, 2),
    ]
    if isinstance(value, torch.Tensor):
        odd = [
            value.to(torch.complex64), value.half(), value.flatten(), value[None], value.to_sparse(),
            value.to("meta"), torch.zeros(1).expand(2**40), torch.full_like(value, float("nan"), dtype=torch.float32),
            *odd,
        ]  # fmt: skip
    if dice.random() < 0.15:
        del inside[key]
    else:
        inside[key] = dice.choice(odd)
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


def try_checkpoint(data: bytes) -> bytes:
    from gan.trainer.checkpoint import Checkpoint

    path = Path(sys.argv[2]) / f".mutant{os.getpid()}"
    path.write_bytes(data)
    try:
        checkpoint = Checkpoint.load(path)
    except GanError:
        return REFUSED
    finally:
        path.unlink()
    try:
        checkpoint.averaged_networks(checkpoint.system())
        return WORKED
    except GanError:
        return REACHED


# Operators


def any_operator(_: bytes, dice: random.Random) -> bytes:
    return some_graph(dice)


def try_operator(data: bytes) -> bytes:
    """What the reader lets through is given to onnxruntime, as a session is made and as it runs."""
    import onnxruntime

    from gan.runtime.wire import read_model

    try:
        read_model(data)
    except GanError:
        return REFUSED
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(
            None, {}
        )
    except Exception:  # onnxruntime's own errors derive from Exception alone
        return REACHED
    return WORKED


KINDS: dict[str, tuple[Callable[[bytes, random.Random], bytes], Callable[[bytes], bytes]]] = {
    "models": (changed_model, try_model),
    "checkpoints": (changed_checkpoint, try_checkpoint),
    "operators": (any_operator, try_operator),
}


def main() -> None:
    kind, folder, first, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    change, attempt = KINDS[kind]
    files = [path.read_bytes() for path in sorted(folder.glob("[!.]*"))] or [b""]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in range(first, first + count):
        dice = random.Random(number)
        base = dice.choice(files)
        try:
            mutant = change(base, dice)
        except (ValueError, pickle.PickleError, RuntimeError, TypeError, NotImplementedError):
            mutant = changed_bytes(base, dice)  # a change that cannot be written down
        try:
            ended = attempt(mutant)
        except BaseException as error:
            print(f"{number}: {type(error).__name__}: {error!s:.300}", file=sys.stderr, flush=True)
            ended = FOREIGN
        os.write(1, ended)


if __name__ == "__main__":
    main()
