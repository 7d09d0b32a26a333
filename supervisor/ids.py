"""What the ids of processes say: `generation/0`, and `generation/standby/0`, an understudy."""

from __future__ import annotations

STANDBY = "standby"


def entry_of(id_: str) -> str:
    """The entry of the file that a replica or an understudy belongs to."""
    return id_.rpartition("/")[0].removesuffix(f"/{STANDBY}")


def understudies_of(entry: str) -> str:
    """What the ids of an entry's understudies have before their numbers."""
    return f"{entry}/{STANDBY}"


def is_understudy(id_: str) -> bool:
    """Whether this is the id of an understudy."""
    return id_.rpartition("/")[0].endswith(f"/{STANDBY}")
