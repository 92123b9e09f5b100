"""How steps are keyed, cached and retried, and how a step becomes a Prefect task.

A step's cache key is made of its name, the digests of the receipts and the slice of the spec it is given, the
project source it reaches and the versions of the libraries that shape its output. Whatever can not be keyed stops
the run. A stored result is believed only while the artifact it names is whole.
"""

import errno
import hashlib
import inspect
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, update_wrapper, wraps
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.context import TaskRunContext
from prefect.states import Cancelled
from prefect.transactions import IsolationLevel, get_transaction
from pydantic import BaseModel

from models.errors import Fault
from tasks.journal import StepState, journal
from tasks.lease import LeasedLocks
from tasks.planning import Planned, Unknown, plan, unknown_steps, why
from tasks.sourcecode import source_reached, version
from tasks.storage import Call, Receipt, Store
from tasks.watching import Stopped

# The only form in which a stored result is believed: nothing in it can execute.
PLAIN_JSON = {
    "type": "json",
    "jsonlib": "json",
    "object_decoder": "prefect.serializers.prefect_json_object_decoder",
    "loads_kwargs": {},
}


class Unkeyable(TypeError):
    """An argument of a cached step has no content that a key could be made of. A programmer's mistake."""


@dataclass
class ByContent(CachePolicy):
    """A key that was made before the task run began, so that Prefect has nothing to fail at in silence."""

    call: Call | None = None

    def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs) -> str:
        return f"{self.call.step}-{self.call.key}"


def this_call() -> Call:
    """The key of the step that is running, and what it was made from."""
    return TaskRunContext.get().task.cache_policy.call


class Step:
    """A Prefect task whose key, results and locks belong to the store it is called with.

    Calling it runs the task and returns its receipt, or raises what the task raised.
    """

    def __init__(self, function: Callable, libraries: tuple[str, ...], cached: bool, options: dict[str, Any]):
        update_wrapper(self, function)
        self.name, self.libraries, self.cached = function.__name__, libraries, cached
        self.signature = inspect.signature(function)
        body = self.unless_made(function) if cached else function
        self.task = Task(
            body, name=self.name, persist_result=cached, result_serializer="json", cache_policy=NO_CACHE, **options
        )

    def unless_made(self, function: Callable) -> Callable:
        """The function, answered by its artifact where a kill fell between that and Prefect's note of it."""

        @wraps(function)
        def body(*args, **kwargs):
            store, call = self.signature.bind(*args, **kwargs).arguments["store"], this_call()
            if store.whole(call.step, call.key):
                return self.signature.return_annotation.model_validate(store.manifest(call.step, call.key)["receipt"])
            try:
                return function(*args, **kwargs)
            except Stopped as stopped:  # neither a success to keep nor a failure to retry
                get_transaction().write_on_commit = False
                return Cancelled(name="Stopped", message=str(stopped), data=stopped)

        return body

    def __call__(self, *args, label: str | None = None, **kwargs) -> Any:
        arguments = self.signature.bind(*args, **kwargs).arguments
        label, begun = label or self.name, time.monotonic()
        if (planned := plan.get()) is not None:
            entry, receipt = self.planned(arguments, label)
            planned.append(entry)
            return receipt
        state, call = self.run(arguments, label)
        self.note([state], label, begun)
        return self.outcome(state, arguments, call, label)

    def map(self, calls: list[tuple] | Unknown, store: Store, label: str | None = None) -> list | Unknown:
        """The receipts of many calls, each a task run of its own, a few at a time; in a plan one line speaks for all.

        Args:
            calls: the arguments of each call, without the store that all of them share.

        Raises:
            whatever the first call that failed raised, once all have ended.
        """
        label, begun = label or self.name, time.monotonic()
        if (planned := plan.get()) is not None:
            return self.planned_many(calls, store, label, planned)
        bound = [self.signature.bind(*call, store=store).arguments for call in calls]
        if len(bound) == 1:
            ended = [self.run(bound[0], label)]
        else:
            begin = partial(self.run, futures=True)
            started = [begin(arguments, f"{label} {number}/{len(bound)}") for number, arguments in enumerate(bound, 1)]
            ended = [(waited(future), call) for future, call in started]
        self.note([state for state, _ in ended], label, begun)
        pairs = zip(ended, bound, strict=True)
        return [self.outcome(state, arguments, call, label) for (state, call), arguments in pairs]

    def run(self, arguments: dict[str, Any], label: str, futures: bool = False) -> tuple[Any, Call | None]:
        """The final state of a task run, or its future, and the call's key."""
        call = None
        if self.cached:
            store, call = arguments["store"], self.call(arguments)
            task = self.bound(store, call, label)
            self.evict_if_damaged(store, call)
        else:
            task = self.task.with_options(name=label)
        return (task.submit(**arguments) if futures else task(**arguments, return_state=True)), call

    def note(self, states: list, label: str, begun: float) -> None:
        """One entry in the journal for one call, or for many."""
        book, names = journal.get(), [state.name for state in states]
        if book is None:
            return
        others = [name for name in names if name != "Cached"]
        bad = [state.name for state in states if not state.is_completed()]
        state = (bad or others or ["Cached"])[0]
        seconds = round(time.monotonic() - begun, 3)
        book.note(StepState(step=label, state=state, seconds=seconds, calls=len(states), cached=names.count("Cached")))

    def outcome(self, state: Any, arguments: dict[str, Any], call: Call | None, label: str) -> Any:
        receipt = state.result()
        if self.cached and self.stored_result(arguments["store"], call) is None:
            place = arguments["store"].results
            raise Fault(f"{place} did not keep what {label} returned, so the next run would do it again. Make it writable.")
        return receipt

    def planned(self, arguments: dict[str, Any], label: str) -> tuple[Planned, Any]:
        """What a run would do with a call, and the stored receipt, or an `Unknown` where the step would run."""
        waits_for = unknown_steps(list(arguments.values()))
        if not self.cached:
            return Planned(step=label, cached=False, because="it runs every time"), Unknown(label)
        store, call = arguments["store"], None if waits_for else self.call(arguments)
        if call and self.is_cached(store, call):
            return Planned(step=label, cached=True, because=""), self.stored_result(store, call)
        made_from = call.made_from if call else self.made_from(arguments)
        because = why(made_from, store.manifests(self.name), waits_for)
        return Planned(step=label, cached=False, because=because), Unknown(label)

    def planned_many(self, calls: list[tuple] | Unknown, store: Store, label: str, plan: list[Planned]) -> list | Unknown:
        """One line for all calls; an `Unknown` where it is not known yet which calls there will be."""
        if isinstance(calls, Unknown):
            plan.append(
                Planned(step=label, cached=False, because=f"{calls.step} will run; what that leaves as it was stays cached")
            )
            return Unknown(label)
        each = [self.planned(self.signature.bind(*call, store=store).arguments, label) for call in calls]
        running = [entry for entry, _ in each if not entry.cached]
        if not running:
            plan.append(Planned(step=label, cached=True, because="" if len(each) == 1 else f"all {len(each)} parts"))
        else:
            because = (
                running[0].because
                if len(each) == 1
                else f"{len(each) - len(running)} of {len(each)} parts are cached; for the others: {running[0].because}"
            )
            plan.append(Planned(step=label, cached=False, because=because))
        return [receipt for _, receipt in each]

    def bound(self, store: Store, call: Call, label: str) -> Task:
        policy = ByContent(call=call).configure(
            isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=LeasedLocks(store.locks)
        )
        return self.task.with_options(name=label, cache_policy=policy, result_storage=store.results.absolute())

    def call(self, arguments: dict[str, Any]) -> Call:
        """The key of a call with these arguments, and everything it was made from.

        Raises:
            Unkeyable: an argument is neither plain JSON, nor a spec, nor a receipt.
        """
        made_from = self.made_from(arguments)
        blob = json.dumps(made_from, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return Call(step=self.name, key=hashlib.sha256(blob.encode()).hexdigest()[:32], made_from=made_from)

    def made_from(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": self.name,
            "inputs": {name: identity(value) for name, value in arguments.items() if name != "store"},
            "code": source_reached(inspect.getsourcefile(self.__wrapped__)),
            "libraries": {library: version(library) for library in self.libraries},
        }

    def is_cached(self, store: Store, call: Call) -> bool:
        """Whether a call would be answered from the store."""
        return store.whole(call.step, call.key) and self.stored_result(store, call) is not None

    def stored_result(self, store: Store, call: Call) -> Receipt | None:
        """What Prefect stored for a call; None where that is absent, unreadable, or not this step's receipt as plain JSON.

        Prefect reads a record with the serializer that the record names, and one that names pickle would execute what it
        holds. So the record is looked at here first, with nothing but a JSON parser.
        """
        manifest, kind = store.manifest(call.step, call.key), self.signature.return_annotation
        try:
            record = json.loads((store.results / f"{call.step}-{call.key}").read_bytes())
            written = record["metadata"]["serializer"]
            result = json.loads(record["result"])
            same = (
                {name: written[name] for name in PLAIN_JSON} == PLAIN_JSON
                and result["__class__"] == f"{kind.__module__}.{kind.__qualname__}"
                and result["data"] == manifest["receipt"]
            )
            return kind.model_validate(result["data"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def evict_if_damaged(self, store: Store, call: Call) -> None:
        """Forget a stored result unless it can be read and its artifact is whole, so that the step runs again."""
        record = store.results / f"{call.step}-{call.key}"
        if record.exists() and not self.is_cached(store, call):
            record.unlink(missing_ok=True)


def step(
    *, libraries: tuple[str, ...] = (), cached: bool = True, retries: int = 3, delays: tuple[float, ...] = (2, 8, 30)
) -> Callable[[Callable], Step]:
    """Make a function a step: cached by content, retried only for what may pass, with backoff and jitter."""
    options = {
        "retries": retries,
        "retry_delay_seconds": list(delays[:retries]),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": is_transient,
    }
    return lambda function: Step(function, libraries, cached, options)


def waited(future) -> Any:
    """The final state of a task run that was submitted."""
    future.wait()
    return future.state


def is_transient(task, task_run, state) -> bool:
    """Retry what may pass next time; bad data and bad specs never will."""
    try:
        state.result()
    except Exception as error:
        return may_pass(error)
    return False


def may_pass(error: BaseException) -> bool:
    """Whether the same call could succeed a little later: lost connections, time-outs, busy files, a full GPU."""
    if isinstance(error, Fault):
        return False
    if type(error).__name__ in ("OutOfMemoryError", "CommitFailedError"):  # torch's on a shared GPU, Delta Lake's
        return True
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    final = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOSPC)
    final += (errno.EROFS, errno.EEXIST, errno.ENOTEMPTY)
    # Arrow's word for damaged bytes is an OSError without a number.
    return isinstance(error, OSError) and error.errno not in (None, *final)


def identity(value: Any) -> Any:
    """What of an argument counts for a key."""
    if isinstance(value, Unknown):  # only while planning
        return value
    if hasattr(value, "cache_identity"):
        return value.cache_identity()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(name): identity(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise Unkeyable(f"A step was given a {type(value).__name__}; pass a spec, a receipt or plain JSON values.")
