"""What learns and forecasts: arrays and tensors only.

Nothing here knows Prefect, a path or a clock, and nothing here imports `tasks` or `flows`.
With torch, numpy and pydantic installed, this package runs alone on a bare GPU machine
(`models.bundle` also needs safetensors).
"""
