"""The commands of `qjsupervisor` besides `start`: one module each, imported only when it is asked for.

Each `run` takes the configuration and what the command line said, prints, and returns the exit status.
"""
