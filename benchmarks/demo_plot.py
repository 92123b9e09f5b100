"""The plot in README.md: what the demo's live model forecast from a good, a median and the worst origin of its test fold.

Run `make demo` first; this reads what its `validate` step stored.

    python benchmarks/demo_plot.py [--out docs/demo.png]
"""

import argparse
from pathlib import Path

from flows.spec import load_spec
from tasks.charts import draw_examples
from tasks.promote import read_live
from tasks.storage import Store
from tasks.validate import Scores

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "demo.png")
    given = parser.parse_args()
    spec = load_spec(ROOT / "deployments" / "demo.yaml")
    store = Store(spec.store)
    live = read_live(store, spec.name).model.digest
    scores = next(one["receipt"] for one in store.manifests("validate") if one["receipt"]["model"] == live)
    backtest = store.read_json(Scores.model_validate(scores), "backtest.json")
    figure = draw_examples(backtest["test"]["examples"], f"{spec.source.target}, GW")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out, dpi=110, metadata={"Software": None})
    print(f"{given.out}: model {live[:8]}")


if __name__ == "__main__":
    main()
