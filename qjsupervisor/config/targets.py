"""Parses where jobs are sent: `targets = prod_*:https://a, *:http://b:8069`, and queue_job's host, port and scheme.

Pure. An entry may contain a user and a password (`http://user:secret@host`). If there is an '@', errors quote
nothing, because a comma or colon in the password may have split the text anywhere.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import SplitResult, unquote, urlsplit

from .settings import DATABASE, TargetSettings
from .values import entries, host, shown, split_port

ANY = "*"
_STAND_IN = "qjsupervisor-database"
#: (glob over databases, its targets).
TargetRules = tuple[tuple[str, tuple[TargetSettings, ...]], ...]
#: (host as written in a URL, its own port or None).
Hosts = tuple[tuple[str, int | None], ...]

_ENTRY = re.compile(r"(?:(?P<glob>.*?)\s*:\s*)??(?P<url>https?://.*)", re.IGNORECASE)


def parse_targets(text: str) -> TargetRules:
    """The rules in order of first appearance; a repeated glob has several targets."""
    rules: dict[str, list[TargetSettings]] = {}
    for number, entry in enumerate(entries(text), start=1):
        try:
            glob, target = _parse_entry(entry)
        except ValueError as error:
            if "@" in text:
                raise ValueError(
                    f"entry {number} is wrong; allowed: PATTERN:http[s]://USER:PASSWORD@HOST[:PORT], "
                    "other characters than letters and digits in the password written as %XX"
                ) from None
            raise ValueError(f"entry {shown(entry)}: {error}") from None
        rules.setdefault(glob, []).append(target)
    return tuple((glob, tuple(targets)) for glob, targets in rules.items())


def parse_hosts(text: str) -> Hosts:
    """Parse queue_job's `host`: one or more hosts separated by commas, each with an optional port."""
    if "@" in text:
        raise ValueError("user and password do not belong here; set http_auth_user and http_auth_password")
    hosts = tuple(split_port(entry) for entry in entries(text))
    if not hosts:
        raise ValueError("no host in it; allowed: a host name or address, or several separated by commas")
    return hosts


def completed(rules: TargetRules, common: TargetRules) -> TargetRules:
    """The rules followed by `common`, which matches any database.

    Targets without their own user, password or CA file take those of `common`.
    """
    pattern = common[0][1][0]
    done = tuple((glob, tuple(_filled(target, pattern) for target in targets)) for glob, targets in rules)
    return done if any(glob == ANY for glob, _ in rules) else (*done, *common)


def _filled(target: TargetSettings, common: TargetSettings) -> TargetSettings:
    if target.user is None:
        target = replace(target, user=common.user, password=common.password)
    return replace(target, ca_file=common.ca_file)


def _parse_entry(entry: str) -> tuple[str, TargetSettings]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError("no URL in it; allowed: PATTERN:http://HOST[:PORT] or PATTERN:https://HOST[:PORT]")
    glob = ANY if match["glob"] is None else match["glob"]
    if not glob:
        raise ValueError("the pattern before ':' is missing; '*' fits every database")
    parts = urlsplit(match["url"])
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("only scheme, host and port are allowed in the URL, nothing behind them")
    user, password = _credentials(parts)
    scheme = parts.scheme.lower()
    # Check the host with a valid name in place of {database}.
    name, port = split_port(parts.netloc.rpartition("@")[2].replace(DATABASE, _STAND_IN))
    port = port or (443 if scheme == "https" else 80)
    url = f"{scheme}://{host(name)}:{port}".replace(_STAND_IN, DATABASE)
    return glob, TargetSettings(url=url, user=user, password=password)


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    userinfo, at, _ = parts.netloc.rpartition("@")
    if not at:
        return None, None
    user, _, password = userinfo.partition(":")
    return unquote(user), unquote(password)
