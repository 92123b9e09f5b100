"""How each step is run, stored, cached and retried: one file a step, named after it.

Besides the steps: `storage` (the only code that writes), `policy` (cache keys and retries) with `sourcecode` (the code
in a key), `lease` (the lock behind "computed once") and `planning` (what a run would do), `journal` (how its steps
ended), `progress`, and the report's `charts`. May import `models`, never `flows`.
"""
