"""The channel string: `name[:capacity[:key[=value]]...]`, separated by commas or line ends.

Pure. Reads what queue_job reads; stricter where queue_job would take a slip of the pen silently (an unknown
key, a channel configured twice), because there a job would run where it should not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..channelspec import MAX_NAME_BYTES, ROOT, ChannelSpec, Rate, complete_name, complete_tree, inherited, parent_name
from ..text import nearest
from .sizes import parse_size, size_text, with_sizes
from .values import Parser, duration, duration_in, entries, integer_in, is_unicode, shown, yes_or_no

_MAX_THROTTLE_S = 366 * 86400

#: Slips of the pen for ':' and ',', and what begins a comment or a quotation.
_IMPOSSIBLE = ";=#|\"'"
#: What queue_job's own channel settings do not have.
_OWN_KEYS = ("min", "max", "reserve", "weight", "rate", "rate_default", "max_runtime")
_KEYS = ("sequential", "throttle", "paused", "capacity_default", "sequential_default", *_OWN_KEYS)
_MAX_STARTS = 1_000_000
_MAX_PERIOD_S = 31 * 86400
#: The same, as they are called in a ChannelSpec.
_OPTION_FIELDS = ("minimum", "reserve", "weight", "rate", "rate_default", "max_runtime_s")
_SIZES = {"min": "minimum", "max": "capacity", "capacity_default": "capacity_default"}
_FLAGS = ("sequential", "paused", "sequential_default", "reserve")


def parse_channels(text: str) -> tuple[ChannelSpec, ...]:
    """The tree that a channel string describes: the root first, each channel behind its parent.

    What lies between and is not configured is there too: the root with capacity 1, others with their
    parent's defaults. Percentages stay as they are: `with_options` puts them into numbers, and looks whether minimums
    fit. Raises ValueError that names the entry.
    """
    specs: dict[str, ChannelSpec] = {}
    for entry in entries(text):
        try:
            spec = _parse_entry(entry)
        except ValueError as error:
            raise ValueError(f"entry {shown(entry)}: {error}") from None
        if spec.name in specs:
            raise ValueError(f"entry {shown(entry)}: channel {shown(spec.name)} is configured twice; keep one")
        specs[spec.name] = spec
    return complete_tree(specs.values())


def parse_channel_options(text: str) -> tuple[ChannelSpec, ...]:
    """What channels are given beside what is set up for them: only what _OWN_KEYS say is set.

    Raises ValueError that names the entry.
    """
    found: dict[str, ChannelSpec] = {}
    for entry in entries(text):
        name, *items = (part.strip() for part in entry.split(":"))
        try:
            pairs = [_parse_item(item, _OWN_KEYS) for item in items]
            if not name or not pairs:
                raise ValueError(f"allowed: NAME:KEY=VALUE, with the keys {', '.join(_OWN_KEYS)}")
            spec = checked(ChannelSpec(name=complete_name(name), capacity=None))
            for key, value in pairs:
                spec = _with(spec, key, value)
            _check_share(spec)
        except ValueError as error:
            raise ValueError(f"entry {shown(entry)}: {error}") from None
        keys = [key for key, _value in pairs]
        if spec.name in found or len(set(keys)) < len(keys):
            twice = next((f"{key} of" for key in keys if keys.count(key) > 1), "channel")
            raise ValueError(f"entry {shown(entry)}: {twice} {shown(spec.name)} is given twice; keep one")
        found[spec.name] = spec
    return tuple(found.values())


def with_options(specs: Sequence[ChannelSpec], options: Sequence[ChannelSpec]) -> tuple[ChannelSpec, ...]:
    """A tree of channels, and what `channel_options` give them; those that it lacks are made where they are limited.

    All sizes are numbers then. Of two maximums the smaller one counts. Raises ValueError that names the channel, for a
    size that cannot be, and for minimums that do not fit.
    """
    tree = {spec.name: spec for spec in specs}
    for option in options:
        own = {name: value for name in _OPTION_FIELDS if (value := getattr(option, name))}
        if option.name not in tree:
            if own.keys() <= {"max_runtime_s"} and option.capacity is None:
                continue
            tree[option.name] = inherited(option.name, _nearest(tree, option.name))
        tree[option.name] = replace(tree[option.name], **own)
    return with_sizes(complete_tree(tree.values()), {option.name: option.capacity for option in options})


def _nearest(tree: Mapping[str, ChannelSpec], name: str) -> ChannelSpec:
    above = parent_name(name) or ROOT
    while above not in tree and above != ROOT:
        above = parent_name(above) or ROOT
    return tree.get(above) or ChannelSpec(name=ROOT, capacity=1)


def checked(spec: ChannelSpec) -> ChannelSpec:
    """The spec with 0 as 'no limit of its own', or ValueError: what must hold of any channel."""
    if not is_unicode(spec.name):
        raise ValueError(f"{shown(spec.name)} is not UTF-8")
    if not all(part.strip() for part in spec.name.split(".")):
        raise ValueError(f"{shown(spec.name)} is not a channel name; allowed: parts separated by single dots")
    odd = next((char for char in spec.name if char in _IMPOSSIBLE or not char.isprintable()), None)
    if odd is not None:
        raise ValueError(
            f"{shown(spec.name)} is not a channel name, because of {shown(odd)}; the capacity stands behind ':',"
            " the next channel behind ','"
        )
    if len(spec.name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"{shown(spec.name, 40)} is too long a channel name; allowed: {MAX_NAME_BYTES} bytes")
    if spec.sequential and spec.capacity != 1:
        has = "no capacity" if spec.capacity is None else f"capacity {size_text(spec.capacity)}"
        raise ValueError(f"a sequential channel needs capacity 1, this one has {has}")
    capacity = spec.capacity if spec.name == ROOT else spec.capacity or None
    return replace(spec, capacity=capacity, capacity_default=spec.capacity_default or None)


def _parse_entry(entry: str) -> ChannelSpec:
    name, *rest = (part.strip() for part in entry.split(":"))
    if not name:
        raise ValueError("the channel's name is missing; allowed: NAME[:CAPACITY[:KEY[=VALUE]]...]")
    name = complete_name(name)
    capacity: int | None = 1
    first_is_size = False
    if rest:
        given = len(rest)
        capacity, rest = _take_capacity(name, rest)
        first_is_size = len(rest) < given
    spec = ChannelSpec(name=name, capacity=capacity)
    seen: set[str] = set()
    for item in rest:
        key, value = _parse_item(item)
        if key in seen:
            raise ValueError(f"{key} is given twice; keep one")
        seen.add(key)
        if key == "max" and first_is_size:
            raise ValueError("max is what the capacity before it is; keep one of them")
        spec = _with(spec, key, value)
    _check_share(spec)
    return checked(spec)


def _check_share(spec: ChannelSpec) -> None:
    if spec.reserve and not spec.minimum:
        raise ValueError("reserve keeps a minimum free, and there is no min; add min=N, or remove it")
    if spec.name != ROOT:
        return
    if spec.minimum or spec.weight:
        raise ValueError("min, weight and reserve are for channels below root: it shares with no other")
    if spec.capacity is not None and spec.capacity < 0:
        raise ValueError(f"root is {size_text(spec.capacity)} of nothing; allowed: a number")


def _take_capacity(name: str, rest: list[str]) -> tuple[int | None, list[str]]:
    """The capacity, if the first part is one, and the parts behind it. Only the root must have one."""
    first = rest[0]
    if first.partition("=")[0].strip() in _KEYS:
        if name != ROOT or any(item.partition("=")[0].strip() == "max" for item in rest):
            return None, rest
        raise ValueError(f"the root's capacity is missing before {shown(first)}")
    if first[:1].isalpha():
        raise ValueError(_unknown(first, "neither a capacity nor a known key"))
    try:
        return parse_size("capacity", first), rest[1:]
    except ValueError as error:
        raise ValueError(f"capacity: {error}") from None


def _parse_item(item: str, keys: Sequence[str] = _KEYS) -> tuple[str, str | None]:
    """'key' or 'key=value' -> key, value or None."""
    key, equals, value = (part.strip() for part in item.partition("="))
    if keys is not _KEYS and key in _KEYS and key not in keys:
        raise ValueError(f"{key} is set up in the database; allowed here: {', '.join(keys)}")
    if key not in keys:
        raise ValueError(_unknown(key, "no known key", keys))
    return key, value if equals else None


def _with(spec: ChannelSpec, key: str, value: str | None) -> ChannelSpec:
    found: dict[str, Any]
    try:
        if key in _SIZES:
            found = {_SIZES[key]: parse_size(key, value or "")}
        elif key in _FLAGS:
            found = {key: value is None or yes_or_no(value)}
        else:
            field, parse = _VALUES[key]
            found = {field: parse(value or "")}
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    return replace(spec, **found)


def _rate(value: str) -> Rate:
    starts, slash, period = value.partition("/")
    if not slash or not starts.strip():
        raise ValueError(f"{shown(value)} is not a rate; allowed: STARTS/PERIOD, as in 100/1m")
    number, period_s = integer_in(1, _MAX_STARTS)(starts), duration(period)
    if not 1 <= period_s <= _MAX_PERIOD_S:
        raise ValueError(f"the period {shown(period)} is out of range; allowed: 1s to 31d")
    return Rate(number, period_s)


#: By key: what it is called in a ChannelSpec, and how its value is read.
_VALUES: Mapping[str, tuple[str, Parser[Any]]] = {
    "throttle": ("throttle_s", integer_in(0, _MAX_THROTTLE_S)),
    "weight": ("weight", integer_in(1, 100)),
    "rate": ("rate", _rate),
    "rate_default": ("rate_default", _rate),
    "max_runtime": ("max_runtime_s", duration_in(1, 30 * 86400)),
}


def _unknown(word: str, what: str, keys: Sequence[str] = _KEYS) -> str:
    near = nearest(word.partition("=")[0].strip(), keys)
    hint = f" (did you mean {near}?)" if near else ""
    first = "a number, then " if keys is _KEYS else ""
    return f"{shown(word)} is {what}{hint}; allowed: {first}{', '.join(keys)}"
