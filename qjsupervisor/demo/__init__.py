"""A throw-away PostgreSQL, a stand-in Odoo and work for them: `qjsupervisor demo` and the tests.

Nothing here is needed to run jobs. Nothing in the rest of the package imports it, but the command line.
"""
