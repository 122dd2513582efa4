"""What libpq's words on a failed connection mean."""

from __future__ import annotations

import psycopg2
import pytest

from qjsupervisor.postgres.failures import translated, why_unreachable, with_place

AT = 'connection to server at "10.0.0.1", port 5432 failed: '
ON = 'connection to server on socket "/run/.s.PGSQL.5432" failed: '
ADVICE = "\n\tIs the server running on that host and accepting TCP/IP connections?\n"


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (f"{AT}Connection refused{ADVICE}", "Connection refused"),
        (f"{AT}No route to host{ADVICE}", "No route to host"),
        (
            f"{ON}No such file or directory\n\tIs the server running locally and accepting ...\n",
            "No such file or directory",
        ),
        (f"could not connect to server: Connection refused{ADVICE}", "Connection refused"),
        (f"{AT}FATAL:  the database system is starting up\n", "the database system is starting up"),
        (
            'could not translate host name "pg" to address: Name or service not known\n',
            'could not translate host name "pg" to address: Name or service not known',
        ),
    ],
)
def test_a_server_that_cannot_be_reached(message: str, why: str) -> None:
    assert why_unreachable(psycopg2.OperationalError(message)) == why


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        (f'{AT}FATAL:  password authentication failed for user "odoo"\n', True),
        (f"{AT}FATAL:  Passwort-Authentifizierung für Benutzer »odoo« fehlgeschlagen\n", True),
        (f"{AT}ВАЖНО:  слишком много подключений\n", True),
        (f"{AT}fe_sendauth: no password supplied\n", False),
        (f"{AT}server closed the connection unexpectedly\n\tThis probably means ...\n", False),
        (f"{AT}server does not support SSL, but SSL was required\n", False),
    ],
)
def test_what_concerns_one_database_or_role(message: str, refused: bool) -> None:
    """`refused`: the server spoke, so it is there."""
    error = psycopg2.OperationalError(message)
    assert why_unreachable(error) == ""
    assert translated("db", error).refused is refused


@pytest.mark.parametrize(
    "message", ['FATAL:  password authentication failed for user "odoo"', "fe_sendauth: no password supplied"]
)
def test_a_server_that_asks_for_a_password_is_there(message: str) -> None:
    """Also where the place of the password was added."""
    found = with_place(translated("db", psycopg2.OperationalError(f"{AT}{message}\n")), "")
    assert found.refused
    assert "; " in str(found)
