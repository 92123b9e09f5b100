"""benchmarks/gpu.py: what it needs, and that it says nothing of a GPU where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = ("prefect", "pandas", "pyarrow", "safetensors", "tasks", "flows")
BARE = f"""
import runpy, sys
from importlib.machinery import ModuleSpec

class NotInstalled:  # it may be looked for, as torch does, but not imported
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] in {FORBIDDEN} else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"{{spec.name}} is not installed", name=spec.name)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, "benchmarks")
sys.argv[0] = "benchmarks/gpu.py"
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""
SMALL = ["--rows", "1500", "--steps", "2", "--turns", "1", "--batch-sizes", "8", "4"]


def printed(**environment) -> str:
    """What the benchmark prints when it is run small, and can import no more than it says."""
    own = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-W", "error", "-c", BARE, *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=own)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_gpu_it_measures_the_processor_and_says_so():
    said = printed(CUDA_VISIBLE_DEVICES="")
    assert "There is no GPU here: these are figures of the processor, on 1 threads, and it is compared with itself." in said
    assert "\nGPU: " not in said
    assert "tf32" not in said
    lines = [line.split()[:3] for line in said.splitlines()]
    for case in (["reference", "8"], ["residual", "4"]):
        assert all(lines.count([*case, precision]) >= 2 for precision in ("float32", "bfloat16"))  # speed, forecasts
    assert said.count("forecasts differ by") == 4
    assert said.count("losses of the first 5 steps differ by 0.0e+00") == 2
    assert "NOT within" not in said


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_is_named_and_agrees_with_the_processor():
    said = printed()
    assert f"GPU: {torch.cuda.get_device_name()}" in said
    assert said.count("forecasts differ by") == 6
    assert "NOT within" not in said
