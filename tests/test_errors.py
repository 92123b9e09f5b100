"""The words that messages share."""

import pytest

from models.errors import counted, shortlist


@pytest.mark.parametrize(
    ("count", "what", "said"),
    [
        (1, "rows", "1 row"),
        (0, "rows", "0 rows"),
        (2000, "repeated stamps", "2,000 repeated stamps"),
        (1, "repeated stamps", "1 repeated stamp"),
        (1, "rows before the first values dropped", "1 row before the first values dropped"),
        (1, "empty values of steps masked", "1 empty value of steps masked"),  # where steps is a column
        (1, "series", "1 series"),
    ],
)
def test_one_thing_is_told_in_the_singular(count, what, said):
    assert counted(count, what) == said


def test_of_a_long_list_the_first_few_are_told_and_how_many_more_there_are():
    assert shortlist(range(7)) == "0, 1, 2, 3, 4 and 2 more"
