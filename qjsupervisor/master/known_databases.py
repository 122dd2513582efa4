"""Which databases are new and, with `new_databases = hold`, wait until an operator resumes them. Pure.

A database that was restored or duplicated has the pending jobs of its original, and would run them. What was there at
the end of the very first scan is known, and so is what an operator resumes. A database is recognised by its name and
its oid: one that was dropped and made again is another one. Without `hold` each database is known once it is seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class KnownDatabases:
    """The databases that an operator knows, and those that wait."""

    def __init__(self, *, hold: bool) -> None:
        #: Changes with a reload.
        self.hold = hold
        #: Names of databases that wait, and why.
        self.held: dict[str, str] = {}
        #: Something that `keep` tells has changed since this was set to False.
        self.changed = False
        #: By name; None: it is known, and was not looked into yet.
        self._oids: dict[str, int | None] = {}
        #: All that there was at the first start has been seen.
        self._is_complete = False

    def admits(self, database: str, oid: int | None, copy_of: Collection[str] = ()) -> str | None:
        """Whether a database may be served (None), or why it waits. `copy_of`: served ones with its database.uuid."""
        same = database in self._oids and (oid is None or self._oids[database] in (None, oid))
        if same or not self.hold or not self._is_complete:
            self._know(database, oid)
            return None
        what = "it appeared after the start" if database not in self._oids else "it was made anew since it was served"
        copy = f"; it has the database.uuid of {', '.join(copy_of)}: is it a copy?" if copy_of else ""
        self.held[database] = (
            f"new: {what}; its jobs wait for `qjsupervisor resume {database}` (new_databases = hold){copy}"
        )
        return self.held[database]

    def oid_of(self, database: str) -> int | None:
        """The only database of that name that may be served; None: any."""
        return self._oids.get(database) if self.hold else None

    def listed(self, names: Collection[str]) -> None:
        """A scan of all databases came to its end: these are there."""
        if not self._is_complete or not self.hold:
            for name in names:
                self._oids.setdefault(name, None)
        gone = [name for name in self._oids if name not in names]
        for name in gone:
            del self._oids[name]
        self.changed = self.changed or bool(gone) or not self._is_complete
        self._is_complete = True
        self.held = {name: why for name, why in self.held.items() if name in names}

    def notice(self, database: str, oid: int | None) -> None:
        """A database that cannot be served was looked into."""
        if database in self._oids and self._oids[database] is None:
            self._know(database, oid)

    def trust(self, database: str) -> None:
        """An operator says that whatever has this name may be served."""
        self._oids[database] = None
        self.changed = True

    def resume(self, database: str) -> bool:
        """Let a database be served that waits; False: it does not."""
        if self.held.pop(database, None) is None:
            return False
        self.trust(database)
        return True

    def keep(self, _now_s: float, _wall_s: float) -> dict[str, Any] | None:
        """What `restore` takes, as JSON has it; None: nothing."""
        return {"known": self._oids} if self.hold and self._is_complete else None

    def restore(self, kept: object) -> bool:
        """Go on with what a former life knew; False: that is none of what `keep` made."""
        if kept is None or not self.hold:
            return True
        known = kept.get("known") if isinstance(kept, dict) else None
        if not isinstance(known, dict) or not all(_is_oid(oid) for oid in known.values()):
            return False
        self._oids, self._is_complete = dict(known), True
        return True

    def _know(self, database: str, oid: int | None) -> None:
        self.held.pop(database, None)
        if oid is not None and self._oids.get(database) != oid:
            self._oids[database] = oid
            self.changed = True


def _is_oid(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32)


def copies(uuids: dict[str, str]) -> list[tuple[str, ...]]:
    """Of databases and their database.uuid, the names of those that share one."""
    by_uuid: dict[str, list[str]] = {}
    for name, uuid in sorted(uuids.items()):
        by_uuid.setdefault(uuid, []).append(name)
    return [tuple(names) for names in by_uuid.values() if len(names) > 1]
