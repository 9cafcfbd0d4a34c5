"""An array that stays where it was computed and is handed on by the DLPack protocol, without a copy."""

from __future__ import annotations

from typing import Any


class DeviceArray:
    """Images on a GPU (or on the CPU, where the generator runs there), for another library to take over.

    `torch.from_dlpack(array)`, `cupy.from_dlpack(array)` and, on the CPU, `numpy.from_dlpack(array)` share its memory.
    Nothing writes to that memory any more, and it lives as long as the last of them; on a GPU it belongs to the
    generator's session, so keep the generator too. What was computed is complete: any stream may read it.
    """

    def __init__(self, source: Any, shape: tuple[int, ...], owner: object = None) -> None:
        """source: has the memory, and the protocol. owner: what must live while the memory is not handed on."""
        self._source, self.shape, self._owner = source, shape, owner

    def __len__(self) -> int:
        return self.shape[0]

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self._source.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self._source.__dlpack_device__()
        return int(kind), int(index)
