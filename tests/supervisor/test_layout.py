from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.layout import (
    MAX_SOCKET_PATH_BYTES,
    Layout,
    UnsafeDirectoryError,
    child_of_log,
    file_name,
    socket_path,
    state_dir,
)

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,20}(/[0-9]{1,3})?", fullmatch=True)


@given(NAMES, NAMES)
def test_two_children_never_share_a_file(first: str, second: str) -> None:
    assert (file_name(first) == file_name(second)) == (first == second)
    assert child_of_log(Path(f"/logs/{file_name(first)}.log")) == first


def test_the_socket_lies_in_the_state_directory_when_its_path_is_short() -> None:
    state = Path("/state/blue")

    assert socket_path(state, {}, 7) == state / "supervisor.sock"


@given(st.text("aé/", min_size=110, max_size=200), st.text("r/", max_size=120))
def test_the_socket_s_path_always_fits(text: str, runtime: str) -> None:
    path = socket_path(Path(f"/{text}x"), {"XDG_RUNTIME_DIR": f"/{runtime}"}, 2**31)

    assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def test_long_state_directories_have_sockets_of_their_own() -> None:
    one, other = (socket_path(Path(f"/{'x' * 120}/{name}"), {}, 7) for name in ("a", "b"))

    assert one != other
    assert one.parent == other.parent == Path("/tmp/understudy-7")


def test_everything_made_is_ours_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "base" / "blue", {})

    layout.create()
    layout.create()

    for path in (layout.state, layout.logs, layout.nodes, layout.nats):
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "blue"
    state.mkdir()
    state.chmod(0o777)

    with pytest.raises(UnsafeDirectoryError, match="blue"):
        Layout(state, {}).create()


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "blue").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafeDirectoryError):
        Layout(tmp_path / "blue", {}).create()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"UNDERSTUDY_STATE_DIR": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/s/n"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/understudy/n"),
        ({"XDG_STATE_HOME": "x", "HOME": "/h"}, "/h/.local/state/understudy/n"),
        ({"UNDERSTUDY_STATE_DIR": "", "HOME": "/h"}, "/h/.local/state/understudy/n"),
    ],
)
def test_the_state_directory_is_the_first_that_the_environment_names(
    environ: dict[str, str], expected: str
) -> None:
    assert state_dir("n", environ) == Path(expected)


def test_each_node_of_a_namespace_has_a_state_directory_of_its_own() -> None:
    assert state_dir("n", {"UNDERSTUDY_STATE_DIR": "/s"}, "gpu1") == Path("/s/n@gpu1")


def test_without_a_home_the_password_database_has_one() -> None:
    assert state_dir("n", {}) == Path.home() / ".local/state/understudy/n"
