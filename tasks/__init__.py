"""How each step is run, stored, cached and retried: one file a step, named after it.

Besides the steps: `storage` (the only code that opens files), `policy` (cache keys and retries),
`lease` (the lock behind "computed once") and `progress`. May import `models`, never `flows`.
"""
