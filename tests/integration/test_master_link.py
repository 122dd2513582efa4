"""What the monitor asks of its master."""

from __future__ import annotations

import json
import select
import socket
from contextlib import closing
from pathlib import Path

from qjsupervisor.loop import Loop
from qjsupervisor.monitor.master_link import FRESH_S, MasterLink, Said

from ..helpers import FakeClock


def test_one_answer_of_the_master_serves_all_of_a_moment(tmp_path: Path, clock: FakeClock) -> None:
    with Loop(clock) as loop:
        path = str(tmp_path / "c.sock")
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(path)
            listener.listen()
            link = MasterLink(loop, path, clock)
            heard: list[Said] = []
            for _ in range(3):
                link.get(heard.append)
            client, _ = listener.accept()
            with closing(client):
                while not select.select([client], [], [], 0)[0]:
                    loop.turn(0.1)
                assert json.loads(client.recv(100)) == {"do": "status"}
                client.sendall(b'{"ok": true, "status": {"n": 1}}\n')
                while len(heard) < 3:
                    loop.turn(1)
            link.get(heard.append)
            assert [said.status for said in heard] == [{"n": 1}] * 4
            assert not select.select([listener], [], [], 0)[0]
            clock.advance(FRESH_S + 0.1)
            link.get(heard.append)
            assert select.select([listener], [], [], 1)[0]
            link.close()
