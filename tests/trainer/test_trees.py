"""Trees of tensors are walked in order and rebuilt as they were."""

from __future__ import annotations

import pytest
import torch

from gan.trainer.trees import leaves, tree_map, tree_zip

A, B, C, D = (torch.tensor(float(i)) for i in range(4))


def test_leaves_come_in_order_from_any_nest() -> None:
    tree = {"z": [A, (B,)], "a": {"deep": C}, "last": D}
    assert [leaf.item() for leaf in leaves(tree)] == [0, 1, 2, 3]
    assert list(leaves(A)) == [A]
    assert list(leaves([])) == []


def test_tree_map_keeps_the_nest_and_leaves_the_old_one_alone() -> None:
    tree = {"x": [A, (B, C)], "y": D}
    doubled = tree_map(lambda leaf: leaf * 2, tree)
    assert doubled == {"x": [torch.tensor(0.0), (torch.tensor(2.0), torch.tensor(4.0))], "y": 6.0}
    assert isinstance(doubled["x"], list) and isinstance(doubled["x"][1], tuple)
    assert [leaf.item() for leaf in leaves(tree)] == [0, 1, 2, 3]
    assert tree_map(lambda leaf: leaf + 1, A).item() == 1


def test_tree_zip_pairs_the_tensors_of_two_nests_of_one_form() -> None:
    first, second = {"x": [A, (B, C)], "y": D}, {"x": [D, (C, B)], "y": A}
    paired = tree_zip(lambda a, b: 10 * a + b, first, second)
    assert [leaf.item() for leaf in leaves(paired)] == [3, 12, 21, 30]
    assert isinstance(paired["x"], list) and isinstance(paired["x"][1], tuple)
    assert tree_zip(torch.add, B, C).item() == 3
    with pytest.raises(ValueError, match=r"longer|shorter"):
        tree_zip(torch.add, [A, B], [C])
