"""In what order: the flows, the composed spec they take, and the command line over them.

May import `tasks` and `models`; nothing imports `flows`.
"""
