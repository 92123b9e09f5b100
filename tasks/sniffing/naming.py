"""What the names of columns tell."""

import re

STAMPS = (
    "timestamp", "datetime", "date", "time", "stamp", "when", "ds", "ts", "epoch", "unix", "period", "datum", "zeit", "uhrzeit",
    "zeitstempel", "zeitpunkt", "fecha", "dt", "month", "day", "week", "year", "monat", "tag", "jahr", "t", "utc", "at", "hour",
)  # fmt: skip
SERIES = (
    "id", "series", "store", "shop", "item", "sku", "product", "unit", "device", "sensor", "station", "site", "turbine",
    "meter", "customer", "asset", "machine", "location", "symbol", "ticker", "region", "uid", "name", "key", "code", "zone", 
    "plant", "airport", "country", "city", "dept", "department", "household", "building", "panel", "entity", "group", "filiale",
    "artikel",
)  # fmt: skip
TARGETS = (
    "target", "y", "load", "demand", "sales", "value", "consumption", "power", "energy", "price", "close", "count", "cnt",
    "quantity", "qty", "units", "revenue", "amount", "volume", "traffic", "production", "generation", "output", "passengers",
    "orders", "umsatz", "wert", "verbrauch", "last", "leistung", "absatz", "menge", "preis", "kwh", "mw", "kw", "p",
)  # fmt: skip
LABELS = ("label", "labels", "class", "classes", "klasse", "target", "activity", "category", "fault", "diagnosis", "outcome")
STATES = ("state", "status", "failure", "anomaly", "alarm", "event", "condition", "mode", "zustand", "störung", "fehler")
CASES = ("case", "sample", "instance", "trial", "example", "recording", "segment", "subject", *SERIES)
STEPS = ("step", "index", "idx", "position", "pos", "frame", "tick", "order", *STAMPS)
SPLITS = ("split", "fold", "set", "subset", "partition", "part")
KNOWN_AHEAD = ("holiday", "holidays", "workday", "weekday", "weekend", "dayofweek", "promo", "promotion", "month", "hour",
               "season", "forecast", "planned", "schedule")  # fmt: skip

INDEX = re.compile(r"\s*|__index_level_\d+__|Unnamed: \d+")


def is_index(name: str) -> bool:
    """Whether a column has no name of its own: then it holds the numbers of rows, as pandas writes them along."""
    return INDEX.fullmatch(name) is not None


def words_of(name: str) -> list[str]:
    """The words of a name, in small letters: `WindSpeed_avg` is wind, speed, avg."""
    parted = re.sub(r"([a-zäöüß\d])([A-ZÄÖÜ])", r"\1 \2", name)
    return [word for word in re.split(r"[\W_]+", parted.lower()) if word]


def rank(name: str, hints: tuple[str, ...]) -> int:
    """Place of the first hint that a name is or holds; a whole name comes before a word; else twice their number."""
    words = words_of(name)
    whole = "".join(words)
    if whole in hints:
        return hints.index(whole)
    found = [hints.index(word) for word in words if word in hints]
    return len(hints) + min(found) if found else 2 * len(hints)


def is_hinted(name: str, hints: tuple[str, ...]) -> bool:
    return rank(name, hints) < 2 * len(hints)


def glob_of(names: list[str], others: list[str]) -> str | None:
    """The glob that matches these names and none of the others, None where there is no plain one."""
    stems = {re.sub(r"\d+$", "", name) for name in names}
    if len(names) < 2 or len(stems) != 1:
        return None
    (stem,) = stems
    if not stem or any(mark in stem for mark in "*?[") or any(name.startswith(stem) for name in others):
        return None
    return f"{stem}*"


def alike(names: list[str]) -> list[str]:
    """The largest set of names that differ by a number at their end only, or are nothing but one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if re.search(r"\d$", name):
            groups.setdefault(re.sub(r"\d+$", "", name), []).append(name)
    return max(groups.values(), key=len, default=[])
