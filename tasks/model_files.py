"""The two files of a stored model, whatever it does."""

from models.errors import Fault
from tasks.storage import Receipt, Store


def read_model_files(store: Store, model: Receipt) -> tuple[bytes, bytes]:
    """Weights and description of the model that a receipt names.

    Raises:
        Fault: they are gone or damaged.
    """
    manifest = store.manifest(model.step, model.key)
    if not store.whole(model.step, model.key) or manifest["receipt"].get("digest") != model.digest:
        raise Fault(
            f"Model {model.digest[:8]} is not whole any more: a file of {store.folder(model.step, model.key)} is gone or "
            "changed. Restore it, train again with the settings it had, or delete the pointer under live/ to go on without it."
        )
    return store.file(model, "weights.safetensors").read_bytes(), store.file(model, "bundle.json").read_bytes()
