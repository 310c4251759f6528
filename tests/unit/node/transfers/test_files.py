"""The files of a session: bounds, checksums, and that nothing half-written is ever in its place."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from capsule.node.transfers import SessionFiles
from capsule.node.transfers.files import MAX_PARTS, MAX_TRANSFERS
from capsule_protocol.errors import SessionError
from tests.unit.kernels.forked import open_descriptors, opened_since

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SessionFiles]:
    (tmp_path / "files").mkdir()
    files = SessionFiles(tmp_path)
    before = open_descriptors()
    yield files
    await files.close()
    assert not opened_since(before)
    gathering = tmp_path / "uploads"
    assert not gathering.exists() or not list(gathering.iterdir())


async def test_a_wrong_checksum_leaves_nothing_and_replaces_nothing(files: SessionFiles, tmp_path: Path) -> None:
    (tmp_path / "files" / "a").write_text("before")
    upload = await files.upload("a")
    await upload.begin(0)
    await upload.write([b"after"])
    with pytest.raises(SessionError) as caught:
        await upload.finish(digest(b"other"))
    assert caught.value.code == "checksum_mismatch"
    assert (tmp_path / "files" / "a").read_text() == "before"
    again = await files.upload("a")
    assert again.offset == 0
    again.discard()


async def test_a_transfer_too_many_is_refused_and_one_that_ended_makes_room(files: SessionFiles) -> None:
    uploads = [await files.upload(str(number)) for number in range(MAX_TRANSFERS)]
    for refused in (files.upload("more"), files.download("more")):
        with pytest.raises(SessionError) as caught:
            await refused
        assert caught.value.code == "too_many_transfers"
    uploads[0].discard()
    (await files.upload("more")).discard()
    for upload in uploads:
        upload.abandon()


async def test_a_transfer_that_could_not_begin_takes_no_room(files: SessionFiles) -> None:
    for _ in range(MAX_TRANSFERS + 1):
        with pytest.raises(SessionError) as caught:
            await files.download("none")
        assert caught.value.code == "file_unknown"
    (await files.upload("x")).discard()


async def test_only_so_many_interrupted_uploads_are_kept_the_newest(files: SessionFiles) -> None:
    for number in range(MAX_PARTS + 2):
        upload = await files.upload(str(number))
        await upload.begin(0)
        await upload.write([b"x"])
        upload.abandon()
        (await files.upload(str(number))).abandon()  # waits until the attempt before has been put away
    offsets = []
    for number in range(MAX_PARTS + 2):
        upload = await files.upload(str(number))
        offsets.append(upload.offset)
        upload.discard()
    assert offsets == [0, 0] + MAX_PARTS * [1]


async def test_who_asks_while_an_attempt_is_put_away_goes_on_with_it(files: SessionFiles) -> None:
    upload = await files.upload("a")
    await upload.begin(0)
    writing = asyncio.ensure_future(upload.write([bytes(2**24)]))
    await asyncio.sleep(0)
    upload.abandon()
    again = await files.upload("a")
    await writing
    assert again.offset == 2**24
    again.discard()


async def test_two_at_once_of_one_name_do_not_mix(files: SessionFiles, tmp_path: Path) -> None:
    one, other = await files.upload("a"), await files.upload("a")
    for upload, data in ((one, b"one"), (other, b"other")):
        await upload.begin(0)
        await upload.write([data])
    await one.finish(digest(b"one"))
    assert (tmp_path / "files" / "a").read_text() == "one"
    await other.finish(digest(b"other"))
    assert (tmp_path / "files" / "a").read_text() == "other"


async def test_an_offset_that_was_not_offered_is_refused(files: SessionFiles) -> None:
    upload = await files.upload("a")
    with pytest.raises(SessionError) as caught:
        await upload.begin(5)
    assert caught.value.code == "transfer_failed"
    upload.discard()


async def test_an_upload_replaces_a_link_and_not_what_it_leads_to(files: SessionFiles, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "files" / "a").symlink_to(tmp_path / "outside")
    upload = await files.upload("a")
    await upload.begin(0)
    await upload.finish(digest(b""))
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (tmp_path / "files" / "a").is_symlink()


async def test_a_part_that_became_something_else_is_not_put_in_place(files: SessionFiles, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    upload = await files.upload("a")
    await upload.begin(0)
    await upload.write([b"data"])
    (part,) = (tmp_path / "uploads").iterdir()
    part.unlink()
    part.symlink_to(tmp_path / "outside")
    with pytest.raises(SessionError) as caught:
        await upload.finish(digest(b"data"))
    assert caught.value.code == "file_changed"
    assert not (tmp_path / "files" / "a").exists()


async def test_a_folder_in_the_place_of_an_upload_is_refused(files: SessionFiles, tmp_path: Path) -> None:
    (tmp_path / "files" / "a" / "b").mkdir(parents=True)
    upload = await files.upload("a")
    await upload.begin(0)
    with pytest.raises(SessionError) as caught:
        await upload.finish(digest(b""))
    assert caught.value.code == "file_refused"


async def test_a_directory_that_was_replaced_is_refused(files: SessionFiles, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "files").rename(tmp_path / "kept")
    (tmp_path / "files").symlink_to("outside")
    for refused in (files.upload("a"), files.download("a"), files.list()):
        with pytest.raises(SessionError) as caught:
            await refused
        assert caught.value.code == "file_refused"
    assert not list((tmp_path / "outside").iterdir())


async def test_nothing_goes_on_after_the_end(files: SessionFiles) -> None:
    upload = await files.upload("a")
    await upload.begin(0)
    told: list[str] = []
    upload.on_closed = lambda: told.append("ended")
    await files.close()
    assert told == ["ended"]
    with pytest.raises(SessionError) as caught:
        await upload.write([b"x"])
    assert caught.value.code == "session_dead"
    upload.discard()
    for refused in (files.upload("a"), files.download("a"), files.list()):
        with pytest.raises(SessionError):
            await refused


async def test_a_caller_that_is_cancelled_leaves_the_descriptors_alone_until_the_work_is_done(
    files: SessionFiles,
) -> None:
    upload = await files.upload("a")
    await upload.begin(0)
    writing = asyncio.ensure_future(upload.write([bytes(2**24)]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    upload.abandon()
    again = await files.upload("a")
    assert (again.offset, again.digest) == (2**24, digest(bytes(2**24)))
    again.discard()


async def test_a_beginning_without_end_keeps_nobody_from_leaving(files: SessionFiles, tmp_path: Path) -> None:
    """Hostile code makes a file of any size out of nothing; who asks to go on behind it can be sent away."""
    with (tmp_path / "files" / "endless").open("wb") as file:
        file.truncate(2**43)
    asking = asyncio.ensure_future(files.download("endless", 2**43, "0" * 64))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    asking = asyncio.ensure_future(files.download("endless", 2**43, "0" * 64))
    await asyncio.sleep(0)
    await files.close()
    with pytest.raises(SessionError) as caught:
        await asking
    assert caught.value.code == "session_dead"


async def test_a_caller_that_is_cancelled_while_it_begins_leaves_nothing(files: SessionFiles, tmp_path: Path) -> None:
    (tmp_path / "files" / "a").write_text("x")
    for begin in (files.upload, files.download):
        asking = asyncio.ensure_future(begin("a"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert not list((tmp_path / "uploads").iterdir())
