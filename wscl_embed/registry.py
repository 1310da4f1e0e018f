"""The installed adapters, found through the entry-point group ``wscl_embed.adapters``, and their option strings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args, get_type_hints

from wscl_embed.adapter import Adapter
from wscl_embed.errors import InputError, nearest

GROUP = "wscl_embed.adapters"


@dataclass(frozen=True)
class AdapterInfo:
    """An installed adapter: its name, the distribution it comes from, and its class once loaded."""

    name: str
    distribution: str
    entry_point: EntryPoint

    def load(self) -> type[Adapter]:
        """Import the class.

        Raises:
            InputError: it cannot be imported, or is no `Adapter`.
        """
        try:
            loaded = self.entry_point.load()
        except Exception as error:
            raise InputError(
                f"adapter {self.name} of {self.distribution} cannot be imported ({type(error).__name__}: {error})."
            ) from error
        if not (isinstance(loaded, type) and issubclass(loaded, Adapter)):
            raise InputError(f"adapter {self.name} of {self.distribution}: {loaded!r} is no subclass of Adapter.")
        return loaded


def installed_adapters() -> dict[str, AdapterInfo]:
    """Every installed adapter by name, ours and third parties', in alphabetical order."""
    found = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        found[point.name] = AdapterInfo(point.name, distribution, point)
    return found


def as_adapters(given: str | Adapter | Iterable[str | Adapter]) -> list[str | Adapter]:
    """One adapter or several, as people hand them over, in a list.

    Raises:
        InputError: something else, such as the class of an adapter.
    """
    one = isinstance(given, (str, type, Adapter)) or not isinstance(given, Iterable)
    several: list[Any] = [given] if one else list(given)  # type: ignore[arg-type]
    for spec in several:
        if not isinstance(spec, (str, Adapter)):
            raise InputError(f"an adapter is a name with options, or an object such as MyAdapter(); got {spec!r}.")
    return several


def make_adapter(spec: str | Adapter) -> Adapter:
    """An adapter from ``name`` or ``name:option=value,option=value``; an `Adapter` is returned as it is.

    A list is written with plus signs (``columns=colour+size``), no value with ``none``, and an option of an adapter
    that is itself an option behind a dot (``hierarchy:of=captions,of.column=title``).

    Raises:
        InputError: an unknown adapter or option (names the nearest), or a value that does not fit.

    >>> make_adapter("hashtags:column=tags,n_clusters=50").n_clusters
    50
    >>> make_adapter("hierarchy:of=captions,of.column=title").of.column
    'title'
    """
    if isinstance(spec, Adapter):
        return spec
    name, _, rest = spec.partition(":")
    adapters = installed_adapters()
    if name not in adapters:
        raise InputError(f"unknown adapter {name!r}. {nearest(name, adapters)}")
    cls = adapters[name].load()
    return cls(**parse_options(cls, rest))


def parse_options(cls: type[Adapter], text: str) -> dict[str, Any]:
    """The keyword arguments of ``cls`` that ``option=value,option=value`` asks for, converted to their types."""
    from pydantic import TypeAdapter, ValidationError

    known = cls.option_fields()
    hints = get_type_hints(cls)
    options: dict[str, Any] = {}
    inner: dict[str, list[str]] = {}  # options of adapters that are options, by the name of that option
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"adapter {cls.name}: {pair!r} is not of the form option=value.")
        outer, dot, rest = key.partition(".")
        if dot and outer in known and _is_adapter(hints[outer]):
            inner.setdefault(outer, []).append(f"{rest}={value}")
            continue
        if key not in known:
            raise InputError(f"adapter {cls.name} has no option {key!r}. {nearest(key, known)}")
        if key in options:
            raise InputError(f"adapter {cls.name}: the option {key!r} is given twice.")
        if _is_adapter(hints[key]):
            options[key] = value
            continue
        try:
            options[key] = TypeAdapter(hints[key]).validate_python(_literal(value, hints[key]))
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise InputError(f"adapter {cls.name}: {key}={value!r}: {problem}.") from error
    for key, pairs in inner.items():
        if key not in options:
            raise InputError(f"adapter {cls.name}: {key}.{pairs[0]}, but not the adapter it is for; give {key}=NAME.")
        options[key] = f"{options[key]}:{','.join(pairs)}"
    return options


def _is_adapter(hint: Any) -> bool:
    """Whether an option of this type is an adapter: an option string, or an `Adapter`."""
    return Adapter in get_args(hint)


def _literal(value: str, hint: Any) -> Any:
    kinds = (hint, *get_args(hint))
    if value.lower() == "none" and type(None) in kinds:
        return None
    is_list = any(getattr(kind, "__origin__", kind) in (list, tuple) for kind in kinds)
    return value.split("+") if is_list else value


def adapter_spec(adapter: str | Adapter) -> str:
    """The ``name:option=value,...`` that `make_adapter` makes ``adapter`` from, without options at their default.

    An option that only Python can give, such as a clusterer object, is written as its ``repr``, for people to read.

    >>> adapter_spec(make_adapter("hashtags:n_clusters=50,column=tags"))
    'hashtags:n_clusters=50'
    """
    if isinstance(adapter, str):
        return adapter
    fields_by_name = adapter.option_fields()
    changed = {name: value for name, value in adapter.options().items() if value != fields_by_name[name].default}
    pairs = [pair for name, value in changed.items() for pair in _written(name, value)]
    return ":".join(filter(None, [adapter.name, ",".join(pairs)]))


def _written(name: str, value: Any) -> list[str]:
    """The ``option=value`` pairs of one option."""
    if isinstance(value, Adapter):
        inner, _, rest = adapter_spec(value).partition(":")
        return [f"{name}={inner}", *(f"{name}.{pair}" for pair in filter(None, rest.split(",")))]
    return [f"{name}={'+'.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"]
