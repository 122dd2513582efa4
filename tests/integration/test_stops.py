"""Which failed job stops a sequential channel: told when that changes, and only then."""

from __future__ import annotations

from .served import MakeRig


def test_the_job_that_stops_a_channel_is_told_once_and_so_is_its_end(make_rig: MakeRig) -> None:
    rig = make_rig(channels="root:4,root.s:1:sequential,root.free:1")
    (uuid,) = rig.one.insert_jobs(1, channel="root.s", state="failed")
    rig.one.insert_jobs(1, channel="root.free", state="failed")
    rig.until(lambda: rig.heard("stopped") != [], "it is told")
    assert rig.heard("stopped") == [{"is": "stopped", "channels": [["root.s", uuid, 1, True]]}]
    (second,) = rig.one.insert_jobs(1, channel="root.s", state="failed")
    rig.until(lambda: len(rig.heard("stopped")) == 2, "there are two")
    ((_, first_uuid, failed, _),) = rig.heard("stopped")[-1]["channels"]
    assert (first_uuid, failed) == (uuid, 2)
    rig.order(do="channels")
    rig.go_on(0.2)
    assert len(rig.heard("stopped")) == 2, "a read that finds the same tells nothing"
    rig.set(uuid, "done")
    rig.set(second, "done")
    rig.until(lambda: rig.heard("stopped")[-1]["channels"] == [], "it is over")
