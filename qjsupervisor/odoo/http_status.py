"""What an HTTP status means if no job was run: one table for the worker and for `check`. Pure.

Whether a job was run is not told by a status but by the job's row: worker/outcomes.py.
"""

from __future__ import annotations

_MEANS = {
    401: "rejects the credentials: set http_auth_user and http_auth_password for the proxy in front of Odoo",
    403: "denies access: a proxy in front blocks this machine; set http_auth_user, or change its rules",
    404: "does not know /queue_job/runjob: is it an Odoo with queue_job in its server_wide_modules, restarted since?",
    429: "asks for fewer requests: a proxy limits the rate",
    500: "does not serve this database, or failed: see dbfilter and db_name in Odoo, and its log",
    502: "is a proxy that cannot reach Odoo",
    503: "is a proxy without an Odoo to send to, or Odoo is starting",
    504: "is a proxy whose Odoo does not answer in time",
}  # fmt: skip

#: What a proxy answers on behalf of an Odoo that it cannot reach.
GATEWAY = (502, 503, 504)
#: The statuses with a meaning of their own.
KNOWN = frozenset(_MEANS)


def meaning(status: int) -> str:
    """What the status means and what to do; follows 'HTTP 404:' or the name of a target."""
    if status in _MEANS:
        return _MEANS[status]
    if 200 <= status < 300:
        return "no job was run: does this Odoo serve this database (dbfilter, db_name), or is it another program?"
    if 300 <= status < 400:
        return "redirects, to its database selector or a login: set dbfilter or db_name in Odoo, or https here"
    return "Odoo's queue_job does not answer so: see its log, and that of a proxy in front"
