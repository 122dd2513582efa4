"""Errors: their exit statuses, and what is kept where one gets another message."""

from __future__ import annotations

import errno

import pytest

from qjsupervisor.errors import (
    AlreadyRunning,
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
    NoRoom,
    QJSupervisorError,
    ServerDown,
    unusable_path,
)
from qjsupervisor.states import EX_CANTCREAT, EX_CONFIG, EX_SOFTWARE


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QJSupervisorError("x"), EX_SOFTWARE),
        (ConfigError("channels", "x"), EX_CONFIG),
        (AlreadyRunning("x", None), EX_CANTCREAT),
        (NoRoom("x"), EX_SOFTWARE),
        (DatabaseError("db", "x"), EX_SOFTWARE),
    ],
)
def test_exit_statuses(error: QJSupervisorError, status: int) -> None:
    assert error.exit_status == status


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENOMEM, errno.EIO])
def test_a_system_that_is_short_of_something_is_not_the_configuration_s_fault(number: int) -> None:
    assert isinstance(unusable_path("pidfile", "/x", "cannot be made", OSError(number, "why")), NoRoom)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EROFS, errno.ELOOP])
def test_a_path_that_cannot_be_used_is(number: int) -> None:
    error = unusable_path("pidfile", "/x", "cannot be made", OSError(number, "why"))
    assert isinstance(error, ConfigError)
    assert (error.option, str(error)) == ("pidfile", "pidfile: /x cannot be made: why")


def test_an_error_with_another_message_is_the_same_otherwise() -> None:
    error = ServerDown("db", "h:5432", "refused")
    error.sqlstate, error.refused, error.of_row = "57P03", True, True
    found = error.named("other words")
    assert isinstance(found, ServerDown)
    assert isinstance(found, DatabaseUnavailable)
    assert (str(found), found.database, found.server, found.reason) == ("other words", "db", "h:5432", "refused")
    assert (found.sqlstate, found.refused, found.of_row) == ("57P03", True, True)
    assert str(error) == "PostgreSQL at h:5432 cannot be reached: refused"
