"""Where memory runs out: the same step with fewer windows at a time, whose gradients add up to those of the whole batch."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from models.randomness import random_state, restore_random_state

RAN_OUT = (  # in the words of CUDA, of its libraries, and of torch's own allocator
    "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory",
)  # fmt: skip


class Lesson(Protocol):
    """A batch to learn from: a dataclass of tensors, or None, whose first axis is the batch."""

    def __len__(self) -> int: ...


class Portions:
    """How many windows are worked on at a time: a whole batch, and half as many each time that memory runs out."""

    def __init__(self, device: torch.device, warn: Callable[[str], None]):
        self.device, self.warn = device, warn
        self.at_once = 0  # 0: a whole batch

    def total(self, batch: Lesson, begin: Callable[[], None], add: Callable[[Lesson], Tensor]) -> Tensor:
        """The sum of what `add` returns of each portion of a batch.

        Where memory runs out, it begins anew with smaller portions, the random state as it was: `begin` has to undo
        whatever `add` has changed.

        Raises:
            torch.OutOfMemoryError: there is too little for a single window.
        """
        while True:
            before = random_state(self.device)
            begin()
            try:
                added = [add(portion) for portion in split(batch, self.at_once)]
                return added[0] if len(added) == 1 else torch.stack(added).sum()
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                tried = min(self.at_once or len(batch), len(batch))
                if tried == 1:
                    raise torch.OutOfMemoryError(f"There is too little memory for a single window: {error}") from error
            # Only here, where the error is gone, is the memory free that its frames held on to.
            begin()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            restore_random_state(before, self.device)
            self.at_once = -(-tried // 2)
            self.warn(f"out of memory with {tried} windows at a time; going on with {self.at_once}, their gradients added up")


def ran_out(error: RuntimeError) -> bool:
    """Whether an error says that there was too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in RAN_OUT)


def split(batch: Lesson, size: int) -> list[Lesson]:
    """Portions of so many windows at most; the batch itself where it is no larger, or size is 0."""
    if not size or size >= len(batch):
        return [batch]
    count = -(-len(batch) // size)
    columns = [[None] * count if value is None else value.split(size) for value in vars(batch).values()]
    return [type(batch)(*values) for values in zip(*columns, strict=True)]
