"""Who answers for what is in the storage: the folders that runs have there, and their end.

A run has at most one folder, under a name that no run of before ever had. Its retries have the
same one, and so have the runs that it starts: what one returned is in the hash of the other. The
partition knows every folder before anything is written to it (`folders`: a row for each run that
has it), and when to look at it (`folders_due`). A run that is deleted makes its folder due. When
no run has a folder any more it is deleted: first what is in the storage, then its time. So whoever
dies in between, a coordinator finds it.

        open_folder ──► known ──► objects, committed by stubs in the hash
                          │ due: a run was deleted, or LASTING_MS are over
                    judge_folders ──► a run has it: due again in LASTING_MS
                          │ none has
                    deleted in the storage ──► forget
"""

from __future__ import annotations

from collections.abc import Sequence

from resolute.ids import runs_above
from resolute.status import Code
from resolute.store.keys import Partition
from resolute.store.nodes import code_of
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.store import Store

STARTING_MS = 3_600_000  # so long may a client take from its input to the start of the run
LASTING_MS = 6 * 3_600_000  # between looks at a folder that nobody made due
AGAIN_MS = 60_000  # until what was not deleted is tried again
MOST = 20  # folders of one look
MEMBERS = 100  # runs that had a folder, of one look


class FolderItem(Item):
    flow_key: int
    flow: str
    folder: str
    starting: int
    above_keys: Sequence[int]
    above: Sequence[str]


class JudgeItem(Item):
    folder: str
    flow_keys: Sequence[int]
    flows: Sequence[str]


async def open_folder(
    store: Store, flow_id: str, folder: str, *, starting: bool = False
) -> tuple[str, str]:
    """The code, and the folder that the run has: `folder`, unless it has one.

    Of a run that is `starting` it is its own in any case, for STARTING_MS. Else STALE where the
    run has ended, GONE where there is none.
    """
    partition = store.keys.of(flow_id)
    keys = KeyList(partition.folders, partition.folders_due)
    key = keys.index(partition.flow(flow_id))
    above = runs_above(flow_id)
    places = [keys.index(partition.flow(one)) for one in above]
    item = pack_item(FolderItem(key, flow_id, folder, int(starting), places, above))
    lasting = STARTING_MS if starting else LASTING_MS
    (answer,) = await store.call("open_folder", keys.keys, pack(lasting), [item])
    code = code_of(answer)
    return code, str(answer[1], "utf-8") if code == Code.OK else ""


async def due(store: Store, partition: Partition) -> list[str]:
    """Folders to look at now, the longest due first; at most MOST."""
    found = await store.call("due_folders", [partition.folders_due], pack(MOST))
    return [str(folder, "utf-8") for folder in found]


async def judge(
    store: Store, partition: Partition, folders: Sequence[str]
) -> list[tuple[str, str]]:
    """Each folder with its code: EXISTS where a run has it, OK where none has, nor can get it.

    GONE where it was deleted and forgotten, STALE where more had it than one look can tell. One
    that is to be deleted is due again in AGAIN_MS, should its deletion come to nothing.
    """
    commands = [
        ("ZRANGE", partition.folders, f"[{one} ", f"({one}!", "BYLEX", "LIMIT", 0, MEMBERS)
        for one in folders
    ]
    rows = await store.execute_all(commands)
    keys = KeyList(partition.folders, partition.folders_due)
    items: list[bytes] = []
    for folder, members in zip(folders, rows, strict=True):
        flows = [str(member, "utf-8").removeprefix(f"{folder} ") for member in members]
        places = [keys.index(partition.flow(flow)) for flow in flows]
        items.append(pack_item(JudgeItem(folder, places, flows)))
    reply = await store.call("judge_folders", keys.keys, pack(LASTING_MS, AGAIN_MS), items)
    return [(folder, code_of(one)) for folder, one in zip(folders, reply, strict=True)]


async def forget(store: Store, partition: Partition, folder: str) -> None:
    """Nobody answers for the folder any more: it was deleted."""
    await store.write_all([("ZREM", partition.folders_due, folder)])
