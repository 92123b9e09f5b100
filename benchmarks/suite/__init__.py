"""Data sets, rivals and scores of `newcomer.py`. May import `models`, and of `tasks` the calendar and the clock."""
