"""The list of options: each once, with a name in each place where it can be set."""

from __future__ import annotations

from qjsupervisor.config.options import ODOO, ODOO_OPTIONS, OPTIONS, OWN, QUEUE_JOB, QUEUE_JOB_OPTIONS


def test_names_are_there_once() -> None:
    names = [(option.section, option.name) for option in (*OPTIONS, *QUEUE_JOB_OPTIONS, *ODOO_OPTIONS)]
    assert len(set(names)) == len(names)
    assert {section for section, _ in names} == {OWN, QUEUE_JOB, ODOO}


def test_variables_and_flags_follow_from_the_name() -> None:
    for option in OPTIONS:
        assert option.variable == f"QJSUPERVISOR_{option.name.upper()}"
        assert option.flag == (None if option.secret else "--" + option.name.replace("_", "-"))


def test_defaults_are_what_their_text_says() -> None:
    """Where the text is a value, and no description of one."""
    for option in (*OPTIONS, *QUEUE_JOB_OPTIONS):
        text = option.default_text
        if text and " " not in text and option.default is not None and not text.startswith(("$", "(")):
            assert option.parse(text) == option.default, option.name


def test_each_says_what_it_is_for() -> None:
    for option in (*OPTIONS, *QUEUE_JOB_OPTIONS, *ODOO_OPTIONS):
        assert option.help
        assert not option.help.endswith("."), option.name
