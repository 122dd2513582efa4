"""Becomes another program that does not outlive its parent: `launch.py SIGNAL PARENT USER GROUP COMMAND...`.

SIGNAL is what the program gets when the parent's thread that started it ends, however it ends. USER and
GROUP are numbers, -1 to stay who we are. Standard library only, as the program may be anything, and a script
of its own, as subprocess offers no safe place for prctl in a process with threads.
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
    # After the change of user, which would clear it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
