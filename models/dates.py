"""What is learned of single days of the year: of the 25th of December, of the fourth Thursday in November.

Axes in names: R rows, F covariates known over the horizon.
"""

import torch
from torch import Tensor, nn

from models.series import NUM_DAYS, NUM_WEEKDAYS, Columns


class Dates(nn.Module):
    """The two numbers that the calendar tells of a day, in their place as many numbers that were learned of such days.

    One is looked up by month and day of the month, one by month and which of its Mondays, Tuesdays and so on it is; both
    are added up. All start at zero, so that a day that was never there in training is like any other.
    """

    def __init__(self, columns: Columns):
        super().__init__()
        self.at = columns.date_at
        if self.at is not None:
            self.day, self.weekday = nn.Embedding(NUM_DAYS, 2), nn.Embedding(NUM_WEEKDAYS, 2)
            nn.init.zeros_(self.day.weight)
            nn.init.zeros_(self.weekday.weight)

    def forward(self, known: Tensor) -> Tensor:
        """Covariates (..., R, F) known ahead, as a network may see them."""
        if self.at is None:
            return known
        before, numbers, after = known.tensor_split((self.at, self.at + 2), -1)
        learned = self.day(whole(numbers[..., 0], NUM_DAYS)) + self.weekday(whole(numbers[..., 1], NUM_WEEKDAYS))
        return torch.cat([before, learned.to(known.dtype), after], -1)


def whole(numbers: Tensor, count: int) -> Tensor:
    """Numbers below `count` as integers."""
    return numbers.round().clamp(0, count - 1).long()


def without_dates(channels: Tensor, at: int | None) -> Tensor:
    """Channels (..., C) for a network that learns nothing of single days: the two numbers that stand at `at` taken out."""
    if at is None:
        return channels
    before, _, after = channels.tensor_split((at, at + 2), -1)
    return torch.cat([before, after], -1)
