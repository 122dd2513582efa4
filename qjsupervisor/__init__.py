"""Runs the jobs of Odoo's queue_job, for all databases of a server, one process each."""

__version__ = "1.0.0"
