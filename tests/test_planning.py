import ast
import errno
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import BaseModel

import tasks.sourcecode
from models.errors import Fault
from models.windows import WindowSpec
from tasks.ingest.chunks import Chunk
from tasks.ingest.sources import SourceSpec
from tasks.planning import REASONS, Unknown, differences, flatten, unknown_steps, why
from tasks.policy import Unkeyable, identity, is_transient, may_pass
from tasks.sourcecode import imported, project_file, source_reached
from tasks.storage import Receipt

DIGEST, OTHER = "a" * 64, "b" * 64


def made_from(**changed):
    """What a training was made from, in the shape that `Step.made_from` gives."""
    parts = {
        "step": "train",
        "inputs.fit": {"epochs": 10, "seeds": [0, 1], "clip_norm": 1.0},
        "inputs.windows": DIGEST,
        "inputs.chunk": DIGEST,
        "inputs.shard": [[[0, DIGEST]], []],
        "inputs.several": [DIGEST, OTHER],
        "inputs.stretch": [None, DIGEST, 0],
        "code.tasks/windows.py": DIGEST,
        "libraries.torch": "2.6.0",
    }
    nested: dict = {}
    for name, value in (parts | changed).items():
        room, _, rest = name.partition(".")
        if rest:
            nested.setdefault(room, {})[rest] = value
        else:
            nested[room] = value
    return nested


def manifest(**changed):
    return {"made_from": made_from(**changed)}


def test_nested_mappings_become_one_with_dotted_keys():
    nested = {"step": "train", "inputs": {"fit": {"epochs": 10, "seeds": [0, 1]}, "rivals": {}}, "code": {"a/b.py": "x"}}
    assert flatten(nested) == {"step": "train", "inputs.fit.epochs": 10, "inputs.fit.seeds": [0, 1], "code.a/b.py": "x"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"inputs.fit": {"epochs": 20, "seeds": [0, 1], "clip_norm": 1.0}}, ["fit.epochs 10 -> 20"]),
        ({"inputs.fit": {"epochs": 10, "seeds": [0], "clip_norm": 1.0}}, ["fit.seeds [0, 1] -> [0]"]),
        ({"inputs.fit": {"epochs": 10, "seeds": [0, 1], "clip_norm": None}}, ["fit.clip_norm 1.0 -> null"]),
        ({"inputs.fit": {"epochs": 10, "seeds": [0, 1]}}, ["fit.clip_norm 1.0 -> null"]),  # no longer there
        ({"inputs.season": 48}, ["season null -> 48"]),  # not there before
        ({"inputs.chunk": OTHER}, ["new source bytes"]),
        ({"inputs.windows": OTHER}, ["another windows"]),  # a digest tells a reader nothing
        ({"inputs.windows": None}, ["another windows"]),
        ({"code.tasks/windows.py": OTHER}, ["code of tasks/windows.py"]),
        ({"code.tasks/more.py": OTHER}, ["code of tasks/more.py"]),
        ({"libraries.torch": "2.7.1"}, ["torch 2.6.0 -> 2.7.1"]),
        ({"inputs.shard": [[[0, OTHER]], []]}, ["other rows of its series"]),
        ({"inputs.several": ["c" * 64, OTHER]}, ["1 of 2 several are new"]),
        ({"inputs.stretch": [None, OTHER, 0]}, ["another stretch"]),
        ({"inputs.windows": [Unknown("materialise_windows")]}, []),
        ({"inputs.windows": Unknown("materialise_windows")}, []),  # said as a step that will run
        ({}, []),
        (
            {"inputs.chunk": OTHER, "inputs.fit": {"epochs": 20, "seeds": [0, 1], "clip_norm": 2.0}},
            ["fit.epochs 10 -> 20", "fit.clip_norm 1.0 -> 2.0", "new source bytes"],
        ),
    ],
)
def test_each_change_is_put_in_the_words_of_a_reader(changed, said):
    assert differences(flatten(made_from()), flatten(made_from(**changed))) == said


def test_a_step_that_never_ran_says_so():
    assert why(made_from(), [], []) == "it never ran in this store"
    assert why(made_from(), [], ["ingest"]) == "it never ran in this store"


def test_a_step_is_held_against_the_most_similar_artifact():
    far = manifest(**{"inputs.chunk": OTHER, "libraries.torch": "1"})
    near = manifest(**{"libraries.torch": "2.5.0"})
    for stored in ([far, near], [near, far]):
        assert why(made_from(), stored, []) == "torch 2.5.0 -> 2.6.0"


def test_of_equally_similar_artifacts_the_newest_is_told_of():
    older, newer = (manifest(**{"libraries.torch": version}) for version in ("2.4.0", "2.5.0"))
    assert why(made_from(), [older, newer], []) == "torch 2.5.0 -> 2.6.0"


def test_a_step_whose_inputs_are_the_same_was_damaged():
    assert why(made_from(), [manifest()], []) == "its stored artifact is gone or damaged"


def test_steps_that_will_run_before_come_first_and_once():
    now = made_from(**{"inputs.windows": Unknown("normalise"), "libraries.torch": "2.7.0"})
    said = why(now, [manifest()], ["normalise", "ingest", "normalise"])
    assert said == "normalise will run, ingest will run, torch 2.6.0 -> 2.7.0"


def test_words_on_a_season_that_is_not_found_yet_are_no_change():
    before = {"subject": {"season": "24 steps (a day)", "unit": "kW"}}
    assert why({"subject": {"season": "", "unit": "kW"}}, [{"made_from": before}], ["survey"]) == "survey will run"
    assert "unit kW -> " in why({"subject": {"season": "", "unit": ""}}, [{"made_from": before}], ["survey"])


def test_many_changes_are_counted():
    now = made_from(**{f"inputs.x{number}": 1 for number in range(REASONS + 3)})
    assert why(now, [manifest()], []) == "x0 null -> 1, x1 null -> 1, x2 null -> 1, x3 null -> 1, 3 more changes"


def test_whatever_is_read_off_an_unknown_receipt_is_as_unknown():
    receipt = Unknown("ingest")
    assert receipt.facts.columns.step == "ingest"
    assert unknown_steps([1, {"a": receipt.facts, "b": (Unknown("train"), "x")}]) == ["ingest", "train"]
    assert unknown_steps({"a": 1}) == []
    with pytest.raises(AttributeError):
        _ = receipt.__json__


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),  # a lost connection
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (OSError(errno.EIO, "input/output error"), True),
        (OSError(errno.EBUSY, "busy"), True),
        (OSError(errno.ESTALE, "stale file handle"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})(), True),  # torch's, on a shared GPU
        (type("CommitFailedError", (Exception,), {})(), True),  # Delta Lake's, when another run wrote first
        (Fault("the user's own"), False),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (IsADirectoryError(errno.EISDIR, "a folder"), False),
        (OSError(errno.ENOSPC, "disk full"), False),
        (OSError(errno.EROFS, "read only"), False),
        (ValueError("a bug"), False),
        (TypeError("a bug"), False),
        (KeyError("a bug"), False),
        (RuntimeError("a bug"), False),
        (AssertionError("a bug"), False),
        (MemoryError(), False),
    ],
    ids=lambda value: getattr(value, "strerror", None) or type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_only_what_may_pass_is_tried_again(error, passes):
    class State:
        def result(self):
            raise error

    assert may_pass(error) is passes
    assert is_transient(None, None, State()) is passes


def test_a_step_that_ended_well_is_not_tried_again():
    class State:
        def result(self):
            return 1

    assert is_transient(None, None, State()) is False


def test_a_receipt_counts_by_its_content_alone():
    first, second = (Receipt(step=step, key=key, digest=DIGEST) for step, key in (("a", "1"), ("b", "2")))
    assert identity(first) == identity(second) == DIGEST


def test_a_source_counts_by_its_bytes_and_what_is_read_of_it_not_where_it_lies():
    assert identity(Chunk(pieces=(), digest=DIGEST)) == DIGEST
    here, there = (SourceSpec(uri=uri, timestamp="t", target="y") for uri in ("/a/x.csv", "/b/y.csv"))
    assert identity(here) == identity(there)
    assert "uri" not in identity(here)
    assert identity(here) != identity(here.model_copy(update={"gaps": "interpolate"}))


def test_a_static_covariate_that_moves_to_a_second_file_is_another_source():
    inside = SourceSpec(uri="x.csv", timestamp="t", target="y", series_id="s", static_covariates=["area"])
    elsewhere = inside.model_copy(update={"static_uri": "sites.csv"})
    assert inside.value_columns != elsewhere.value_columns
    assert identity(inside.to_read()) != identity(elsewhere.to_read())
    assert identity(inside.to_arrange()) != identity(elsewhere.to_arrange())
    assert identity(elsewhere) == identity(inside.model_copy(update={"static_uri": "other/sites.csv"}))


def test_specs_collections_and_plain_values_count_as_json():
    value = {
        "w": WindowSpec(lookback=2, horizon=1),
        3: (1, "a", None, True, 0.5),
        "r": [Receipt(step="s", key="k", digest="d")],
    }
    identified = identity(value)
    assert identified == {"w": {"lookback": 2, "horizon": 1, "stride": 1}, "3": [1, "a", None, True, 0.5], "r": ["d"]}
    assert json.loads(json.dumps(identified)) == identified


@pytest.mark.parametrize(
    "value",
    [
        object(),
        np.zeros(2),
        np.float32(1),  # whose text depends on numpy's version
        {1, 2},  # without an order
        b"bytes",
        Path("x"),  # a place, no content
        test_only_what_may_pass_is_tried_again,
        {"deep": [object()]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_content_to_key_by_stops_the_run(value):
    with pytest.raises(Unkeyable, match=r"^A step was given a \w+; pass a spec, a receipt or plain JSON values\.$"):
        identity(value)


def test_an_unkeyable_argument_is_a_programmers_mistake_and_no_fault():
    assert not issubclass(Unkeyable, Fault)
    assert not issubclass(Unkeyable, BaseModel)
    assert not may_pass(Unkeyable("x"))


def test_every_kind_of_import_is_seen():
    source = b"""
import models.windows, json
import tasks.storage as kept
from tasks import progress
from models.errors import Fault, shortlist
def late():
    from tasks.ingest import timeline
    if True:
        import models.fit
from . import near
"""
    names = imported(source)
    for name in (
        "models.windows", "tasks.storage", "tasks.progress", "models.errors", "tasks.ingest.timeline", "models.fit",
    ):  # fmt: skip
        assert name in names
        assert project_file(name)
    assert [name for name in names if project_file(name) and name.startswith(("json", "near"))] == []


def test_a_tree_that_could_not_be_made_beside_another_thread_is_made_again(monkeypatch):
    parse, failures = ast.parse, [SystemError("AST constructor recursion depth mismatch")] * 3

    def fail_at_first(source):
        if failures:
            raise failures.pop()
        return parse(source)

    monkeypatch.setattr(tasks.sourcecode, "ast", SimpleNamespace(**vars(ast) | {"parse": fail_at_first}))  # not pytest's own
    assert imported(b"import json  # not parsed before") == {"json"}
    assert not failures


@pytest.mark.parametrize("module", ["json", "numpy", "models", "tasks", "tasks.ingest", "models.errors.Fault", "tasks.nothing"])
def test_what_is_no_file_of_the_project_is_left_aside(module):
    assert project_file(module) is None


def test_source_reached_names_a_file_and_what_it_imports_through_others():
    root = Path(tasks.sourcecode.__file__).parent.parent
    reached = source_reached(str(root / "tasks" / "validate.py"))
    assert list(reached) == sorted(reached)
    for name in (
        "tasks/validate.py",  # itself
        "tasks/train.py",  # imported
        "models/fit.py",  # by tasks/train.py
        "models/conv1d.py",  # by models/bundle.py, which tasks/train.py imports
        "tasks/ingest/timeline.py",  # in a sub-package
    ):
        assert reached[name] == hashlib.sha256((root / name).read_bytes()).hexdigest()
    assert "models/naive.py" in reached
    assert "tasks/report.py" not in reached
    assert not [name for name in reached if name.startswith("flows/")]


@pytest.mark.parametrize("name", ["policy", "sourcecode", "journal", "lease", "planning", "progress"])
def test_source_that_shapes_no_output_is_not_reached(name):
    root = Path(tasks.sourcecode.__file__).parent.parent
    reached = source_reached(str(root / "tasks" / "train.py"))
    assert f"tasks/{name}.py" not in reached
    assert "models/errors.py" not in reached


def test_a_model_s_code_does_not_reach_how_data_is_read():
    root = Path(tasks.sourcecode.__file__).parent.parent
    own = (
        "batches",
        "fit",
        "losses",
        "memory",
        "parallel",
        "precision",
        "randomness",
        "series",
        "specs",
        "training",
        "windows",
    )
    assert set(source_reached(str(root / "models" / "fit.py"))) == {f"models/{name}.py" for name in own}


def test_a_change_two_imports_away_changes_what_is_reached(tmp_path, monkeypatch):
    """On a project of three files in a folder of its own."""
    for name, text in {
        "tasks/__init__.py": "", "tasks/a.py": "from models import b\n", "models/__init__.py": "",
        "models/b.py": "def late():\n    import models.c\n", "models/c.py": "x = 1\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(tasks.sourcecode, "__file__", str(tmp_path / "tasks" / "sourcecode.py"))
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.split(".")[0] in ("tasks", "models")]:
        monkeypatch.delitem(sys.modules, module)

    def reached():
        source_reached.cache_clear()
        return source_reached(str(tmp_path / "tasks" / "a.py"))

    before = reached()
    assert list(before) == ["models/b.py", "models/c.py", "tasks/a.py"]
    (tmp_path / "models" / "c.py").write_text("x = 2\n")
    after = reached()
    source_reached.cache_clear()
    assert {name for name in before if before[name] != after[name]} == {"models/c.py"}
