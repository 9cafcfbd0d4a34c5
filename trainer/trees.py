"""Trees of tensors: nested lists, tuples and dicts, walked leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

Tree = Any


def leaves(tree: Tree) -> Iterator[Tensor]:
    """The tensors of a tree, in order."""
    if isinstance(tree, Tensor):
        yield tree
    else:
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)


def tree_map(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same tree with `function` applied to every tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, branch) for key, branch in tree.items()}
    return type(tree)(tree_map(function, branch) for branch in tree)


def tree_zip(function: Callable[[Tensor, Tensor], Tensor], a: Tree, b: Tree) -> Tree:
    """The tree of `function` applied to every pair of tensors of two trees of one form."""
    if isinstance(a, Tensor):
        return function(a, b)
    if isinstance(a, dict):
        return {key: tree_zip(function, branch, b[key]) for key, branch in a.items()}
    return type(a)(tree_zip(function, x, y) for x, y in zip(a, b, strict=True))
