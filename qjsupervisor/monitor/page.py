"""The monitor's page: one HTML document without scripts or anything from elsewhere; escapes all it shows."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..text import channel_settings, printable, seconds
from .health import problems, warnings

#: The page needs no script, image, font or frame; it says so, so that nothing injected can load one.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
_REFRESH_S = 2

_STYLE = """
:root{color-scheme:light dark;--fg:#1d2733;--dim:#6b7785;--bg:#f6f7f9;--card:#fff;--line:#e3e7ec;
--bar:#4a7fd6}
@media(prefers-color-scheme:dark){:root{--fg:#dce3ea;--dim:#8b97a5;--bg:#12171d;--card:#1a2129;--line:#2a333d}}
*{box-sizing:border-box}
body{margin:0;padding:2rem;background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif}
main{max-width:72rem;margin:auto}
h1{font-size:1.3rem;margin:0}h2{font-size:.8rem;margin:0 0 .6rem;color:var(--dim);text-transform:uppercase;
letter-spacing:.06em}
header{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;align-items:baseline;margin-bottom:1.2rem}
header span{color:var(--dim)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem 1.2rem;
margin:0 0 1rem;overflow-x:auto}
table{border-collapse:collapse;width:100%}
th{font-weight:500;color:var(--dim);font-size:.8rem;text-align:left}
th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}
tr:last-child td{border-bottom:0}
.n{text-align:right;font-variant-numeric:tabular-nums}.w{white-space:normal;overflow-wrap:anywhere;color:var(--dim)}
.tag{display:inline-block;padding:0 .55em;border-radius:1em;font-size:.85em;background:#8884}
.good{background:#2e9e5b33;color:#1f8a4c}.soft{background:#4a7fd633;color:#3a6fc6}
.warn{background:#d9a51a33;color:#a87b06}.bad{background:#d0433933;color:#cf4339}
.bar{display:inline-block;width:9rem;height:.55rem;border-radius:.3rem;background:var(--line);vertical-align:middle}
.bar i{display:block;height:100%;border-radius:.3rem;background:var(--bar)}
ul{margin:0;padding-left:1.2rem}
"""
_TAGS = {
    "ready": "good", "up": "good", "standby": "soft", "starting": "soft", "backing off": "warn",
    "stopping": "warn", "paused": "warn", "blocked": "bad", "failed": "bad", "down": "bad",
}  # fmt: skip

Markup = str


def render(status: Mapping[str, Any] | None, targets: Sequence[Mapping[str, Any]]) -> bytes:
    """The whole document, UTF-8; `status` None says that the master did not answer."""
    body = _unanswered() if status is None else _answered(status, targets)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>qjsupervisor</title>'
        f'<meta http-equiv="refresh" content="{_REFRESH_S}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace")


def _unanswered() -> Markup:
    return "<header><h1>qjsupervisor</h1></header><section>The master does not answer.</section>"


def _answered(status: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> Markup:
    facts = (
        f"version {_text(status.get('version'))}",
        f"process {_text(status.get('pid'))}",
        f"up {_span(status.get('uptime_s'))}",
        _text(status.get("mode")),
        _text(status.get("fairness")),
    )
    wrong, odd = problems(status), warnings(status)
    return "".join(
        (
            f"<header><h1>qjsupervisor</h1>{''.join(f'<span>{fact}</span>' for fact in facts)}</header>",
            _section("What is wrong", _list(wrong)) if wrong else "",
            _section("To be looked at", _list(odd)) if odd else "",
            _section("Databases", _databases(status)),
            _section("Channels", _channels(status)),
            _section("Odoo", _targets(targets)),
        )
    )


def _databases(status: Mapping[str, Any]) -> Markup:
    return _table(
        (
            "database",
            "state",
            "#pending",
            "#running",
            "#failed",
            "#dispatched",
            "#restarts",
            "#heartbeat",
            "why",
        ),
        (
            (
                _text(view.get("name")),
                _tag(view.get("state")),
                *(_text(view.get(key)) for key in ("pending", "running", "failed", "dispatched", "restarts")),
                _span(view.get("heartbeat_age_s")),
                _text(view.get("last_error") or ""),
            )
            for view in status.get("databases", ())
        ),
    )


def _channels(status: Mapping[str, Any]) -> Markup:
    return _table(
        ("channel", "used", "#running", "#capacity", "#pending", "#failed", "settings"),
        (
            (
                _text(view.get("name")),
                _bar(view),
                _text(view.get("running")),
                "no limit" if view.get("capacity") is None else _text(view["capacity"]),
                _text(view.get("pending")),
                _text(view.get("failed")),
                " ".join(_tag(text) for text in channel_settings(view)),
            )
            for view in status.get("channels", ())
        ),
    )


def _targets(targets: Sequence[Mapping[str, Any]]) -> Markup:
    return _table(
        ("address", "state", "#failures", "#asked again in"),
        (
            (
                _text(view.get("url")),
                _tag(view.get("state")),
                _text(view.get("failures")),
                _span(view.get("retry_in_s")),
            )
            for view in targets
        ),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[Markup]]) -> Markup:
    """Cells are markup already; '#' before a column's name aligns it as numbers, the last one may wrap."""
    classes = ["n" if name.startswith("#") else "" for name in columns]
    head = "".join(f'<th class="{c}">{name.lstrip("#")}</th>' for c, name in zip(classes, columns, strict=True))
    classes[-1] = classes[-1] or "w"
    lines = [
        "<tr>" + "".join(f'<td class="{c}">{cell}</td>' for c, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>" if lines else "none"


def _section(title: str, content: Markup) -> Markup:
    return f"<section><h2>{title}</h2>{content}</section>"


def _list(lines: Sequence[str]) -> Markup:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _tag(state: object) -> Markup:
    return f'<span class="tag {_TAGS.get(str(state), "")}">{_text(state)}</span>'


def _bar(view: Mapping[str, Any]) -> Markup:
    capacity, running = view.get("capacity"), view.get("running") or 0
    if not capacity:
        return ""
    return f'<span class="bar"><i style="width:{min(100, round(100 * running / capacity))}%"></i></span>'


def _span(value: object) -> Markup:
    return _text(seconds(value)) if isinstance(value, (int, float)) else "-"


def _text(value: object) -> Markup:
    return "-" if value is None else html.escape(printable(value))
