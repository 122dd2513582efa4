"""Executes another program that does not outlive its parent: `launch.py SIGNAL PARENT USER GROUP COMMAND...`.

The program receives SIGNAL when the parent's thread that started it ends, for whatever reason. USER and GROUP are
numeric ids, -1 to keep the current ones. It is a script, because subprocess offers no safe place to call prctl in a
process with threads, and uses only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    signum, parent, user, group = map(int, sys.argv[1:5])
    command = sys.argv[5:]
    if user != -1:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    # After changing the user, which clears this setting.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the call
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
