"""The view of a cluster in `status --json` and `cluster status`. Pure; the keys are an interface."""

from __future__ import annotations

from typing import Any

from .counts import Counts, minus
from .ledger import START, Ledger, differences


def cluster_view(ledger: Ledger, cluster: str, now_s: float, own: str = "") -> dict[str, Any]:
    """Members, leases and limbo; `now_s` is the coordinator's clock."""
    return {
        "name": cluster,
        "barrier_s": round(max(0.0, ledger.barrier_until_s - now_s), 1),
        "members": [
            {
                "host": member.host,
                "pid": member.pid,
                "own": name == own,
                "alive": member.valid and member.expires_s > now_s,
                "lease_left_s": round(max(0.0, member.expires_s - now_s), 1) if member.valid else 0.0,
                "leases": _permits(member.lease),
                "excess": _permits(member.excess),
                "floor": _permits(member.floor),
                "floor_lacks": _permits(minus(member.floor_wanted, member.floor)),
                "limbo": _permits(member.limbo, member.limbo_over),
                "waits_in": [channel for channel in member.hungry if not channel.endswith(START)],
                "databases": len(member.serves),
            }
            for name, member in sorted(ledger.members.items(), key=lambda item: (item[1].host, item[1].pid))
        ],
        "limbo": {
            database: _permits(ledger.left.get(database, {}), ledger.left_over.get(database, {}))
            for database in sorted({*ledger.left, *ledger.left_over})
        },
        "differs": differences(ledger),
    }


def _permits(*parts: Counts) -> Counts:
    total: Counts = {}
    for counts in parts:
        for channel, n in counts.items():
            if not channel.endswith(START):
                total[channel] = total.get(channel, 0) + n
    return total
